-- the oldest events of single streams of a user: those older than what is ruled for the stream's name, and what a stream has above
-- stream_bytes (null = no such rule). head.swept remembers how far this has got, so that no event is looked at twice.
-- outcome as above; active: there was something to look at, so there may be more
create or replace function sweep_streams(for_user int8, ruled text[], older_ms int8[], stream_bytes int8, scan_max int4, rows_max int4, bytes_max int8,
  out outcome int4, out rows int4, out freed int8, out active bool) language plpgsql volatile as $f$
declare
  now_ms int8 := clock_ms(); bottom int8; top int8; low int8;
  ts int4[]; tf int8[]; tc int8[]; tx int8[]; p int8[]; us int4[]; up int8[];
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  select a.floor into bottom from account a where a.user_no = for_user for no key update skip locked;
  if not found then outcome := 2; return; end if;
  outcome := 0; rows := 0; freed := 0; active := false;
  select h.last into top from head h where h.user_no = for_user and h.stream_no = 0;

  -- targets: stream, where its next whole event may be, up to which time, how many bytes too many
  select array_agg(t.stream_no), array_agg(t.swept), array_agg(t.cutoff), array_agg(t.excess), min(t.swept) filter (where t.due)
    into ts, tf, tc, tx, low
    from (select x.stream_no, x.swept, x.cutoff, x.excess,
                 x.swept < top and (x.excess > 0 or x.cutoff >= (select e.received_at from event e
                   where e.user_no = for_user and e.position > x.swept order by e.position limit 1)) as due
            from (select h.stream_no, greatest(h.swept, bottom) as swept, coalesce(now_ms - r.older_ms, -1) as cutoff,
                         coalesce(greatest(h.bytes - stream_bytes, 0), 0) as excess
                    from head h
                    join stream s on s.user_no = h.user_no and s.stream_no = h.stream_no
                    left join unnest(ruled, older_ms) r (stream_id, older_ms) on r.stream_id = s.stream_id
                   where h.user_no = for_user and h.stream_no > 0 and (r.stream_id is not null or h.bytes > stream_bytes)) x) t;
  if low is null then return; end if;
  active := true; top := least(top, low + scan_max);

  with whole as materialized (
    select e.position, e.stream_no, e.received_at <= t.cutoff as aged, t.excess, octet_length(e.record) as bytes,
           octet_length(e.record) - signed_bytes(e.flags, substring(e.record from 1 for 274)) - 32 as saved
      from event e
      join unnest(ts, tf, tc, tx) t (stream_no, swept, cutoff, excess) on t.stream_no = e.stream_no
     where e.user_no = for_user and e.position > low and e.position <= top and e.position > t.swept and (e.flags & 8) = 0),
  judged as (
    select w.*, w.aged or sum(w.saved) over (partition by w.stream_no order by w.position rows unbounded preceding) - w.saved < w.excess as wanted from whole w),
  bounded as (
    select j.position, row_number() over (order by j.position) <= rows_max
           and sum(j.bytes) over (order by j.position rows unbounded preceding) - j.bytes < bytes_max as chosen
      from judged j where j.wanted),
  stops as (
    select j.stream_no, min(j.position) - 1 as swept from judged j left join bounded b on b.position = j.position
     where b.chosen is not true group by j.stream_no),
  ends as (
    select t.stream_no, greatest(t.swept, coalesce(s.swept, top)) as swept
      from unnest(ts, tf) t (stream_no, swept) left join stops s on s.stream_no = t.stream_no)
  select (select array_agg(b.position) from bounded b where b.chosen), (select array_agg(n.stream_no) from ends n), (select array_agg(n.swept) from ends n)
    into p, us, up;

  if p is not null then
    select m.rows, m.freed into rows, freed from make_tombstones(array_fill(for_user, array[cardinality(p)]), p) m;
  end if;
  update head h set swept = n.swept from unnest(us, up) n (stream_no, swept)
   where h.user_no = for_user and h.stream_no = n.stream_no and h.swept < n.swept;
end $f$;
