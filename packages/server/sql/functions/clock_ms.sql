-- The clock of the database, in ms since 1970.
create or replace function clock_ms() returns int8 language sql volatile as $f$
  select floor(extract(epoch from clock_timestamp()) * 1000)::int8
$f$;
