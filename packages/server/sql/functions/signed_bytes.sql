-- how long a stored record is up to the end of its signature; head may be cut after 274 bytes
create or replace function signed_bytes(flags int2, head bytea) returns int4 language sql immutable strict as $f$
  select o.at + l.n + 66 + get_byte(head, o.at + 1 + l.n)
    from (select 44 + 4 * (flags & 1) + 16 * (flags & 2) as at) o, lateral (select get_byte(head, o.at) as n) l
$f$;
