-- the hash of the payload in place of its length and itself
create or replace function to_tombstone(flags int2, record bytea) returns bytea language sql immutable strict as $f$
  select substring(record from 1 for s.n) || sha256(substring(record from s.n + 5))
    from (select signed_bytes(flags, substring(record from 1 for 274)) as n) s
$f$;
