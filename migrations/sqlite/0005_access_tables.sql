-- The tables of the replaced system exist in Postgres only. This file keeps the numbers of both sides together.
select 1;
