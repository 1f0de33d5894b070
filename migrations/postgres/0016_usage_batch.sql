-- SQLite keeps usage in batches from here on. Postgres has its rows, and this file keeps the numbers of both sides together.
select 1;
