-- In SQLite the index of the request ids goes. Here it stays: writing it is another machine's work, and nobody waits for
-- it. This file keeps the numbers of both sides together.
select 1;
