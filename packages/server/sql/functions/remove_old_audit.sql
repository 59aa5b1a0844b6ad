-- the oldest rows up to the first checkpoint behind them, if that is older than older_ms. the checkpoint stays, as the beginning
-- of what is left. outcome as in remove_prefix; more: the next ones may be due as well
create or replace function remove_old_audit(older_ms int8, out outcome int4, out rows int4, out more bool) language plpgsql volatile as $f$
declare
  due int8 := clock_ms() - older_ms; low int8; upto int8;
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  outcome := 0; rows := 0; more := false;
  select min(a.seq) into low from audit a;
  select min(c.seq) into upto from audit_checkpoint c where c.seq >= low and c.at <= due;
  if upto is null then return; end if;
  perform set_config('sealpost.audit_retention', 'on', true);
  delete from audit a where a.seq <= upto;
  get diagnostics rows = row_count;
  perform set_config('sealpost.audit_retention', '', true);
  delete from audit_checkpoint c where c.seq < upto;
  more := true;
end $f$;
