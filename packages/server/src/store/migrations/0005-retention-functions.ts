/**
 * The batches of retention (protocol.md §3): each call is one bounded transaction that works under the row lock of the
 * accounts it touches, and waits for none. Who calls them: `retention-store.ts`.
 */
export const retentionFunctions = `
-- how long a stored record is up to the end of its signature; head may be cut after 274 bytes
create function signed_bytes(flags int2, head bytea) returns int4 language sql immutable strict as $f$
  select o.at + l.n + 66 + get_byte(head, o.at + 1 + l.n)
    from (select 44 + 4 * (flags & 1) + 16 * (flags & 2) as at) o, lateral (select get_byte(head, o.at) as n) l
$f$;

-- the hash of the payload in place of its length and itself
create function to_tombstone(flags int2, record bytea) returns bytea language sql immutable strict as $f$
  select substring(record from 1 for s.n) || sha256(substring(record from s.n + 5))
    from (select signed_bytes(flags, substring(record from 1 for 274)) as n) s
$f$;

-- one batch at a time in the whole database. what a crash undoes is done again, so that nobody waits for a disk behind these locks
create function take_retention_turn() returns bool language plpgsql volatile as $f$
begin
  perform set_config('synchronous_commit', 'off', true);
  return pg_try_advisory_xact_lock(hashtext('sealpost retention'));
end $f$;

-- the caller holds the rows of the accounts
create function make_tombstones(of_user int8[], at int8[], out rows int4, out freed int8) language plpgsql volatile as $f$
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

-- outcome: 0 done, 1 another batch is at work. skipped: expired events of accounts that others hold. last: the latest expires_at looked at
create function sweep_expired(skew_ms int8, after int8, rows_max int4, bytes_max int8,
  out outcome int4, out rows int4, out freed int8, out skipped int4, out last int8) language plpgsql volatile as $f$
declare
  due int8 := clock_ms() - skew_ms; u int8[]; p int8[]; hu int8[]; hp int8[];
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  outcome := 0; rows := 0; freed := 0; skipped := 0;
  select array_agg(x.user_no), array_agg(x.position), max(x.expires_at) into u, p, last
    from (select e.*, sum(e.bytes) over (order by e.expires_at, e.user_no, e.position rows unbounded preceding) - e.bytes as before
            from (select i.user_no, i.position, i.expires_at, octet_length(i.record) as bytes
                    from event i where i.expires_at > after and i.expires_at <= due order by i.expires_at limit rows_max) e) x
   where x.before < bytes_max;
  if u is null then return; end if;
  with held as materialized (
    select a.user_no from account a where a.user_no = any(u) order by a.user_no for no key update skip locked)
  select array_agg(x.user_no), array_agg(x.position) into hu, hp
    from unnest(u, p) x (user_no, position) where x.user_no in (select h.user_no from held h);
  skipped := cardinality(u) - coalesce(cardinality(hu), 0);
  if hu is not null then select m.rows, m.freed into rows, freed from make_tombstones(hu, hp) m; end if;
end $f$;

-- the oldest events of a user that are older than older_ms, or tombstones older than tombstones_ms, or more than level bytes;
-- a rule that is null takes nothing. outcome: 0 done, 1 another batch is at work, 2 the account is held or not there
create function remove_prefix(for_user int8, older_ms int8, tombstones_ms int8, level int8, rows_max int4, bytes_max int8,
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

-- the oldest events of single streams of a user: those older than what is ruled for the stream's name, and what a stream has above
-- stream_bytes (null = no such rule). head.swept remembers how far this has got, so that no event is looked at twice.
-- outcome as above; active: there was something to look at, so there may be more
create function sweep_streams(for_user int8, ruled text[], older_ms int8[], stream_bytes int8, scan_max int4, rows_max int4, bytes_max int8,
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

-- what devices that were revoked older_ms ago left behind: their boxes, when and how far they were seen, their tokens. the log itself
-- stays. outcome as above; looked_at: devices, up to (last_user, last_device); more: some of them have boxes left
create function clear_revoked(older_ms int8, after_user int8, after_device int4, devices_max int4, rows_max int4,
  out outcome int4, out rows int4, out looked_at int4, out last_user int8, out last_device int4, out more bool) language plpgsql volatile as $f$
declare
  due int8 := clock_ms() - older_ms; u int8[]; d int4[]; hu int8[]; hd int4[];
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  outcome := 0; rows := 0; looked_at := 0; more := false;
  select array_agg(p.user_no order by p.user_no, p.device_no), array_agg(p.device_no order by p.user_no, p.device_no) into u, d
    from (select i.user_no, i.device_no from device_profile i
           where i.revoked_log_seq is not null and i.cleared_at is null and (i.user_no, i.device_no) > (after_user, after_device)
           order by i.user_no, i.device_no limit devices_max) p;
  if u is null then return; end if;
  looked_at := cardinality(u); last_user := u[looked_at]; last_device := d[looked_at];
  with held as materialized (
    select a.user_no from account a where a.user_no = any(u) order by a.user_no for no key update skip locked)
  select array_agg(x.user_no), array_agg(x.device_no) into hu, hd
    from unnest(u, d) x (user_no, device_no)
    join device_profile p on p.user_no = x.user_no and p.device_no = x.device_no
    join log_entry e on e.user_no = p.user_no and e.log_seq = p.revoked_log_seq
   where e.stored_at <= due and x.user_no in (select h.user_no from held h);
  if hu is null then return; end if;
  delete from log_box b using (
    select k.user_no, k.recipient, k.log_seq from unnest(hu, hd) x (user_no, device_no)
      join log_box k on k.user_no = x.user_no and k.recipient = x.device_no limit rows_max) k
   where b.user_no = k.user_no and b.recipient = k.recipient and b.log_seq = k.log_seq;
  get diagnostics rows = row_count;
  more := rows >= rows_max;
  delete from refresh_family f using unnest(hu, hd) x (user_no, device_no) where f.user_no = x.user_no and f.device_no = x.device_no;
  update device_profile p set cleared_at = clock_ms(), last_seen = null, seen_position = 0
    from unnest(hu, hd) x (user_no, device_no)
   where p.user_no = x.user_no and p.device_no = x.device_no
     and not exists (select from log_box b where b.user_no = x.user_no and b.recipient = x.device_no);
end $f$;
`
