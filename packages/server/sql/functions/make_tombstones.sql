-- the caller holds the rows of the accounts
create or replace function make_tombstones(of_user int8[], at int8[], out rows int4, out freed int8) language plpgsql volatile as $f$
begin
  with old as materialized (
    select e.user_no, e.position, octet_length(e.record) as bytes
      from unnest(of_user, at) x (user_no, position)
      join event e on e.user_no = x.user_no and e.position = x.position
     where (e.flags & 8) = 0),
  made as (
    update event e set flags = e.flags | 8::int2, expires_at = null, record = to_tombstone(e.flags, e.record)
      from old o where e.user_no = o.user_no and e.position = o.position
    returning e.user_no, e.stream_no, o.bytes - octet_length(e.record) as freed),
  sums as (
    select m.user_no, coalesce(m.stream_no, 0) as stream_no, sum(m.freed)::int8 as freed, count(*) as n
      from made m group by grouping sets ((m.user_no, m.stream_no), (m.user_no))),
  counted as (
    update head h set bytes = h.bytes - s.freed from sums s
     where h.user_no = s.user_no and h.stream_no = s.stream_no returning h.stream_no, s.n, s.freed)
  select coalesce(sum(c.n), 0), coalesce(sum(c.freed), 0) into rows, freed from counted c where c.stream_no = 0;
end $f$;
