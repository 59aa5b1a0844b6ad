-- One part of tuple() (protocol.md §1): its length, then its bytes.
create or replace function lp(part bytea) returns bytea language sql immutable as $f$
  select int4send(coalesce(octet_length(part), 0)) || coalesce(part, '')
$f$;
