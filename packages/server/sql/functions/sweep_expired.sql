-- outcome: 0 done, 1 another batch is at work. skipped: expired events of accounts that others hold. last: the latest expires_at looked at
create or replace function sweep_expired(skew_ms int8, after int8, rows_max int4, bytes_max int8,
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
