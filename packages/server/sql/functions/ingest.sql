-- a batch: runs (one per device at most, contiguous device_seq, one session, one epoch), sorted by (user_no, device_no);
-- segs (run x stream); heads (user x stream, stream 0 included), sorted by (user_no, stream_no); events in order of (run, device_seq).
-- all indexes are 1-based. the counts sent by the caller hold when every run is good (the common case); otherwise they are made anew here.
-- verdict: 0 ok, 1 busy, 2 not_active, 3 fenced, 4 duplicate_or_conflict, 5 gap, 6 stale_epoch, 7 a ttl is broken, 8 barred, 9 over the quota; null = all ok.
create or replace function ingest(
  run_user int8[], run_device int4[], run_session uuid[], run_first int8[], run_n int4[], run_epoch int8[],
  run_expires int8[], run_made int8[],                -- least expires_at and greatest time of an event with a ttl, 0 = none; null = no run has any
  run_barred int4[],                                  -- 1: not to be stored even when all else is good; null = none
  run_head int4[], run_off int4[],                    -- index of the user's head; events of that user in earlier runs of the batch
  seg_run int4[], seg_head int4[], seg_n int4[], seg_off int4[], seg_bytes int8[],   -- same per stream; bytes of records
  head_user int8[], head_stream int4[], head_n int4[], head_bytes int8[],
  ev_run int4[], ev_seg int4[], ev_run_ix int4[], ev_seg_ix int4[], ev_expires int8[], ev_flags int2[], ev_record bytea[],   -- *_ix from 1; expires 0 = none
  skew_ms int8,                                       -- tolerance of the ttl rule
  quota int8,                                         -- stored bytes of a user from which nothing more is taken, unless the account has its own; null = none
  patient bool,                                       -- wait for the account rows (bounded by lock_timeout)
  out received_at int8, out verdict int4[], out expected int8[], out log_seq int8[],
  out run_base int8[], out seg_base int8[]            -- position = run_base + run_ix, stream_seq = seg_base + seg_ix; -1 = run not stored
) language plpgsql volatile as $f$
declare
  runs int4 := cardinality(run_user);
  good int4; seen int4[]; own_quota bool;
  hu int8[] := head_user; hs int4[] := head_stream; hn int4[] := head_n; hb int8[] := head_bytes;
  rh int4[] := run_head; ro int4[] := run_off; sh int4[] := seg_head; so int4[] := seg_off;
  total int4[]; size int8[]; map int4[]; spent int4[]; stored int4; i int4; k int4; h int4;
begin
  if patient then   -- its own statement: the next one takes a new snapshot
    perform 1 from account a where a.user_no = any(run_user) order by a.user_no for no key update;
  end if;

  -- 1. account, then device, user by user in the order sent (sorted). skip locked only for the account: one long lock stalls nobody else.
  --    lockrows hands back the newest version of both rows, also of those changed since the snapshot.
  --    one join with two index look-ups; no join between two unnests (a generic plan thinks they have 10 rows and loops n * n).
  select count(*) filter (where x.v = 0), array_agg(x.i), array_agg(x.v), array_agg(x.last_seq + 1), array_agg(x.log_seq), bool_or(x.quota_bytes is not null)
    into good, seen, verdict, expected, log_seq, own_quota
    from (select r.i::int4, d.last_seq, a.log_seq, a.quota_bytes,
                 case when not (a.active and d.active) then 2
                      when d.session_id is distinct from r.session_id then 3
                      when r.first_seq <= d.last_seq then 4          -- before the epoch: duplicates are acked whatever their epoch
                      when r.first_seq > d.last_seq + 1 then 5
                      when r.epoch <> a.log_seq then 6
                      else 0 end as v
            from unnest(run_user, run_device, run_session, run_first, run_epoch) with ordinality r (user_no, device_no, session_id, first_seq, epoch, i)
            join account a on a.user_no = r.user_no
            join device d on d.user_no = r.user_no and d.device_no = r.device_no
           order by r.i
             for no key update of a skip locked
             for no key update of d) x;

  -- after the locks, so that per user a greater position never has an older time
  received_at := floor(extract(epoch from clock_timestamp()) * 1000)::int8;

  if good < runs then
    -- 2. some runs are bad: align the verdicts with the runs; rows that did not come back are busy, or are not there at all
    declare v2 int4[] := array_fill(1, array[runs]); e2 int8[] := array_fill(0::int8, array[runs]); l2 int8[] := e2;
    begin
      for k in 1 .. coalesce(cardinality(seen), 0) loop
        i := seen[k]; v2[i] := verdict[k]; e2[i] := expected[k]; l2[i] := log_seq[k];
      end loop;
      for i in 1 .. runs loop
        if v2[i] = 1 and not exists (select from device d where d.user_no = run_user[i] and d.device_no = run_device[i]) then v2[i] := 2; end if;
      end loop;
      verdict := v2; expected := e2; log_seq := l2;
    end;
  end if;
  if good > 0 and (run_expires is not null or run_barred is not null) then
    for i in 1 .. runs loop
      if verdict[i] = 0 then
        if (run_expires[i] > 0 and run_expires[i] + skew_ms < received_at) or run_made[i] > received_at + skew_ms then
          verdict[i] := 7; good := good - 1;
        elsif run_barred[i] = 1 then
          verdict[i] := 8; good := good - 1;
        end if;
      end if;
    end loop;
  end if;

  -- judged by what was stored before the batch: who is below may go over by one batch. its own statement, so that it sees what
  -- was committed before the locks were there
  if good > 0 and (own_quota or quota is not null) then
    select array_agg(r.i::int4) into spent
      from unnest(run_user) with ordinality r (user_no, i)
      join head t on t.user_no = r.user_no and t.stream_no = 0
      join account a on a.user_no = r.user_no
     where t.bytes >= coalesce(a.quota_bytes, quota);
    for k in 1 .. coalesce(cardinality(spent), 0) loop
      if verdict[spent[k]] = 0 then verdict[spent[k]] := 9; good := good - 1; end if;
    end loop;
  end if;

  if good = 0 then return; end if;
  if good = runs then
    verdict := null; expected := null; log_seq := null;
  else
    -- counts of the good runs only; heads without a good event must not be touched (they may be locked, or not exist)
    total := array_fill(0, array[cardinality(head_n)]); size := array_fill(0::int8, array[cardinality(head_n)]);
    for i in 1 .. runs loop
      if verdict[i] = 0 then h := run_head[i]; ro[i] := total[h]; total[h] := total[h] + run_n[i]; end if;
    end loop;
    for k in 1 .. cardinality(seg_run) loop
      if verdict[seg_run[k]] = 0 then
        h := seg_head[k]; so[k] := total[h]; total[h] := total[h] + seg_n[k]; size[h] := size[h] + seg_bytes[k];
        h := run_head[seg_run[k]]; size[h] := size[h] + seg_bytes[k];
      end if;
    end loop;
    hu := '{}'; hs := '{}'; hn := '{}'; hb := '{}'; map := array_fill(0, array[cardinality(head_n)]); h := 0;
    for k in 1 .. cardinality(head_n) loop
      if total[k] > 0 then h := h + 1; map[k] := h; hu[h] := head_user[k]; hs[h] := head_stream[k]; hn[h] := total[k]; hb[h] := size[k]; end if;
    end loop;
    for i in 1 .. runs loop rh[i] := case when verdict[i] = 0 then map[run_head[i]] else 0 end; end loop;
    for k in 1 .. cardinality(seg_run) loop sh[k] := case when verdict[seg_run[k]] = 0 then map[seg_head[k]] else 0 end; end loop;
  end if;

  -- 3. numbers. the upsert always works on the newest row. heads are sent sorted, so "order by" makes hl line up with them
  with u as (insert into head as t (user_no, stream_no, last, bytes)
             select x.user_no, x.stream_no, x.n, x.b from unnest(hu, hs, hn, hb) with ordinality x (user_no, stream_no, n, b, o) order by x.o
             on conflict (user_no, stream_no) do update set last = t.last + excluded.last, bytes = t.bytes + excluded.bytes
             returning t.user_no, t.stream_no, t.last),
       l as materialized (select array_agg(u.last order by u.user_no, u.stream_no) as hl from u)
  select (select array_agg(case when x.h > 0 then l.hl[x.h] - hn[x.h] + x.off else -1 end order by x.o) from unnest(rh, ro) with ordinality x (h, off, o)),
         (select array_agg(case when x.h > 0 then l.hl[x.h] - hn[x.h] + x.off else -1 end order by x.o) from unnest(sh, so) with ordinality x (h, off, o))
    into run_base, seg_base from l;

  -- 4. the events, and the devices; look-ups by subscript, no joins. the condition on last_seq is the assertion that nobody moved it without the lock
  with ins as (
    insert into event (user_no, position, stream_seq, device_seq, received_at, stream_no, device_no, expires_at, flags, record)
    select run_user[e.run], run_base[e.run] + e.run_ix, seg_base[e.seg] + e.seg_ix, run_first[e.run] + e.run_ix - 1, ingest.received_at,
           head_stream[seg_head[e.seg]], run_device[e.run], nullif(e.expires, 0), e.flags, e.record
      from unnest(ev_run, ev_seg, ev_run_ix, ev_seg_ix, ev_expires, ev_flags, ev_record) e (run, seg, run_ix, seg_ix, expires, flags, record)
     where run_base[e.run] >= 0)
  update device d set last_seq = r.first_seq + r.n - 1
    from unnest(run_user, run_device, run_first, run_n, run_base) r (user_no, device_no, first_seq, n, base)
   where r.base >= 0 and d.user_no = r.user_no and d.device_no = r.device_no and d.last_seq = r.first_seq - 1;
  get diagnostics stored = row_count;
  if stored <> good then raise exception 'ingest: % of % runs advanced their device', stored, good using errcode = 'XX001'; end if;
end $f$;
