/**
 * Which processes serve this database, by leases on the database's clock (docs/operations/nodes.md). Rows of those that ended long ago are
 * removed by whoever starts or ends next.
 */
import type { Pool } from 'pg'
import type { NodeFigures, NodeRow, NodeStore } from '../../ports/store.ts'
import { withClient } from '../postgres/pool.ts'

/** Rows of those that ended are kept for a look. */
const KEPT_MS = 3_600_000

/** Not an upsert: each of them would use up a number. */
const HOLD = {
  name: 'hold_lease',
  text: `with held as (update node set lease_until = clock_ms() + $2::int8, figures = $3::text where node_id = $1::uuid returning node_no),
  gone as (delete from node where lease_until < clock_ms() - $4::int8 and not exists (select from held)),
  made as (insert into node (node_id, lease_until, figures)
    select $1::uuid, clock_ms() + $2::int8, $3::text where not exists (select from held) returning node_no)
  select m.node_no, array(select o.node_no from node o where o.lease_until > clock_ms() and o.node_id <> $1::uuid) as others
    from (select node_no from held union all select node_no from made) m`,
}

const END = { name: 'end_lease', text: 'delete from node where node_id = $1::uuid or lease_until < clock_ms() - $2::int8' }

const LIST = {
  name: 'list_nodes',
  text: 'select node_no, lease_until > clock_ms() as live, figures from node order by live desc, node_no desc limit 1000',
}

export function createNodeStore(pool: Pool): NodeStore {
  return {
    async holdLease(node_id, lease_ms, figures) {
      const values = [node_id, lease_ms, JSON.stringify(figures), KEPT_MS]
      const row = (await withClient(pool, (client) => client.query<{ node_no: number; others: number[] }>({ ...HOLD, values }))).rows[0]
      if (row === undefined) throw new TypeError('hold_lease answers one row')
      return { node_no: row.node_no, live: [row.node_no, ...row.others].sort((a, b) => a - b) }
    },
    async endLease(node_id) {
      await withClient(pool, (client) => client.query({ ...END, values: [node_id, KEPT_MS] }))
    },
    async listNodes() {
      type Row = Omit<NodeRow, 'figures'> & { figures: string }
      const { rows } = await withClient(pool, (client) => client.query<Row>(LIST))
      return rows
        .map(({ figures, ...row }) => ({ ...row, figures: JSON.parse(figures) as NodeFigures }))
        .sort((a, b) => a.node_no - b.node_no)
    },
  }
}
