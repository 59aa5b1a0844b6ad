-- numbers of streams, made where missing: for a session that holds and nobody else, judged under the account's lock.
-- pairs may be repeated. outcome: 0 known, 1 account busy, 2 no active account or device, 3 limit reached, 4 fenced.
create or replace function number_streams(pair_user int8[], pair_device int4[], pair_session uuid[], pair_stream text[], streams_max int4, patient bool)
returns table (stream_no int4, outcome int4) language plpgsql volatile as $f$
declare
  wanted int8[];
  held int8[];
begin
  -- without a lock: a session that does not hold now never will again
  select array_agg(distinct p.u) into wanted from unnest(pair_user, pair_device, pair_session, pair_stream) p (u, d, e, s)
   where not exists (select from stream t where t.user_no = p.u and t.stream_id = p.s)
     and exists (select from device d where d.user_no = p.u and d.device_no = p.d and d.active and d.session_id = p.e);
  if wanted is not null then
    if patient then
      select array_agg(x.user_no) into held from (
        select a.user_no from account a where a.user_no = any(wanted) and a.active order by a.user_no for no key update) x;
    else
      select array_agg(x.user_no) into held from (
        select a.user_no from account a where a.user_no = any(wanted) and a.active order by a.user_no for no key update skip locked) x;
    end if;
    insert into stream as t (user_no, stream_no, stream_id)
      select n.u, n.last + n.rank, n.s
        from (select m.u, m.s, row_number() over (partition by m.u order by m.o) as rank,
                     (select coalesce(max(t.stream_no), 0) from stream t where t.user_no = m.u) as last,
                     (select coalesce(a.quota_streams, streams_max) from account a where a.user_no = m.u) as allowed
                from (select p.u, p.s, min(p.o) as o
                        from unnest(pair_user, pair_device, pair_session, pair_stream) with ordinality p (u, d, e, s, o)
                       where p.u = any(held) and not exists (select from stream t where t.user_no = p.u and t.stream_id = p.s)
                         and exists (select from device d where d.user_no = p.u and d.device_no = p.d and d.active and d.session_id = p.e)
                       group by p.u, p.s) m) n
       where n.last + n.rank <= n.allowed;
  end if;
  return query
    select coalesce(t.stream_no, 0),
           case when t.stream_no is not null then 0
                when d.device_no is null or not d.active or not exists (select from account a where a.user_no = p.u and a.active) then 2
                when d.session_id is distinct from p.e then 4
                when p.u = any(coalesce(held, '{}')) then 3
                else 1 end
      from unnest(pair_user, pair_device, pair_session, pair_stream) with ordinality p (u, d, e, s, o)
      left join stream t on t.user_no = p.u and t.stream_id = p.s
      left join device d on d.user_no = p.u and d.device_no = p.d
     order by p.o;
end $f$;
