/** The relay for those who run it: figures, nodes, versions, the configuration without its secrets. */
import type { Pool } from 'pg'
import type { NodeFigures, NodeStore, OperatedStore } from '../../ports/store.ts'
import type { ShownVariable } from '../../config/shown-variable.ts'
import { VERSION } from '../../telemetry/version.ts'
import type { AdminAnswers } from '../call.ts'
import type { SYSTEM_CONTRACTS } from './contracts.ts'

export type SystemDeps = {
  store: Pick<NodeStore, 'listNodes'> & OperatedStore & { pools: Readonly<Record<'main' | 'ingest', Pool>> }
  variables: readonly ShownVariable[]
  figures(): NodeFigures
}

export function createSystemRoutes({ store, ...deps }: SystemDeps): AdminAnswers<typeof SYSTEM_CONTRACTS> {
  return {
    read_figures: async () => ({ json: { ...(await store.readFigures()), node: deps.figures() } }),
    list_nodes: async () => ({ json: { nodes: await store.listNodes() } }),
    async read_version() {
      const { version, schema_version } = await store.readDatabaseFigures()
      return { json: { sealpost: VERSION, protocol: 1, node: process.versions.node, database: version, schema: schema_version } }
    },
    read_config: async () => ({ json: { variables: deps.variables } }),
    async read_database() {
      const { main, ingest } = store.pools
      return { json: { ...(await store.readDatabaseFigures()), pools: { main: showPool(main), ingest: showPool(ingest) } } }
    },
  }
}

function showPool(pool: Pool): object {
  return { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: pool.options.max }
}
