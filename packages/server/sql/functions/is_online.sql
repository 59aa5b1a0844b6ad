-- whether a device follows over a node that lives, or has its session there
create or replace function is_online(session_id uuid, session_node int4, follower_node int4) returns bool language sql stable as $f$
  select exists (select from node n where n.lease_until > clock_ms()
                    and (n.node_no = follower_node or (session_id is not null and n.node_no = session_node)))
$f$;
