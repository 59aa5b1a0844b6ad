-- the oldest events of a user that are older than older_ms, or tombstones older than tombstones_ms, or more than level bytes;
-- a rule that is null takes nothing. outcome: 0 done, 1 another batch is at work, 2 the account is held or not there
create or replace function remove_prefix(for_user int8, older_ms int8, tombstones_ms int8, level int8, rows_max int4, bytes_max int8,
  out outcome int4, out rows int4, out freed int8, out upto int8) language plpgsql volatile as $f$
declare
  now_ms int8 := clock_ms(); stored int8;
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  perform from account a where a.user_no = for_user for no key update skip locked;
  if not found then outcome := 2; return; end if;
  outcome := 0; rows := 0; freed := 0;
  select h.bytes into stored from head h where h.user_no = for_user and h.stream_no = 0;
  select max(x.position) into upto
    from (select y.position,
                 bool_and(y.before < bytes_max and (coalesce(y.received_at <= now_ms - older_ms, false)
                          or coalesce((y.flags & 8) <> 0 and y.received_at <= now_ms - tombstones_ms, false)
                          or coalesce(stored - y.before > level, false))) over (order by y.position rows unbounded preceding) as removable
            from (select e.position, e.received_at, e.flags,
                         sum(octet_length(e.record)) over (order by e.position rows unbounded preceding) - octet_length(e.record) as before
                    from (select i.position, i.received_at, i.flags, i.record
                            from event i where i.user_no = for_user order by i.position limit rows_max) e) y) x
   where x.removable;
  if upto is null then return; end if;
  with gone as (
    delete from event e where e.user_no = for_user and e.position <= upto
    returning e.stream_no, e.device_no, e.device_seq, octet_length(e.record) as bytes),
  seqs as (
    update device d set swept_seq = greatest(d.swept_seq, g.last)
      from (select n.device_no, max(n.device_seq) as last from gone n group by n.device_no) g
     where d.user_no = for_user and d.device_no = g.device_no),
  sums as (
    select coalesce(g.stream_no, 0) as stream_no, sum(g.bytes)::int8 as bytes, count(*) as n from gone g group by grouping sets ((g.stream_no), ())),
  counted as (
    update head h set bytes = h.bytes - s.bytes from sums s
     where h.user_no = for_user and h.stream_no = s.stream_no returning h.stream_no, s.n, s.bytes)
  select c.n, c.bytes into rows, freed from counted c where c.stream_no = 0;
  update account a set floor = upto where a.user_no = for_user;
end $f$;
