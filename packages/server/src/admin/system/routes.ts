/** The relay for those who run it: figures, versions, the configuration without its secrets, and what may be set while it runs. */
import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { createInviteCode, hashInviteCode } from '../../http/log/invite-code.ts'
import type { Jobs } from '../../jobs/schedule.ts'
import { RATES, type RateRule } from '../../limits/rules.ts'
import type { AdminStore, InviteRow, NodeFigures, NodeStore, OperatedStore } from '../../ports/store.ts'
import type { Settings } from '../../config/settings.ts'
import type { ShownVariable } from '../../config/shown-variable.ts'
import { VERSION } from '../../telemetry/version.ts'
import { type AdminAnswers, DONE, NOT_FOUND } from '../contracts.ts'
import { cursorAfter, decodePlace, encodePlace } from '../cursor.ts'
import { PAGE } from '../fields.ts'

export type SystemDeps = {
  store: Pick<AdminStore, 'listInvites' | 'addInvite' | 'revokeInvite'> &
    Pick<NodeStore, 'listNodes'> &
    OperatedStore & { pools: Readonly<Record<'main' | 'ingest', Pool>> }
  settings: Settings
  jobs: Pick<Jobs, 'list' | 'lastRuns' | 'runSoon'>
  variables: readonly ShownVariable[]
  figures(): NodeFigures
}

type Names =
  | 'read_figures'
  | 'list_nodes'
  | 'read_version'
  | 'read_config'
  | 'read_database'
  | 'read_signup'
  | 'set_signup'
  | 'list_invites'
  | 'create_invite'
  | 'revoke_invite'
  | 'list_limits'
  | 'set_limit'
  | 'list_jobs'
  | 'run_job'
  | 'read_log_level'
  | 'set_log_level'

export function createSystemRoutes({ store, settings, jobs, ...deps }: SystemDeps): AdminAnswers<Names> {
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
    async read_signup() {
      const { value, by } = settings.get('signup')
      return { json: { signup: value, by } }
    },
    async set_signup({ body }) {
      await settings.set('signup', body.signup)
      return DONE
    },
    async list_invites({ query }) {
      const limit = query.limit ?? PAGE
      const before = decodePlace(query.cursor)
      const invites = await store.listInvites(before === null ? null : { created_at: before.at, invite_id: before.id }, limit)
      const next_cursor = cursorAfter(invites, limit, ({ created_at, invite_id }) => encodePlace({ at: created_at, id: invite_id }))
      return { json: { invites, next_cursor } }
    },
    async create_invite({ body }) {
      const code = createInviteCode()
      const { uses, expires_in_s, note } = body
      const row = { invite_id: randomUUID(), lifetime_ms: expires_in_s * 1_000, uses_max: uses, note, code_hash: hashInviteCode(code) }
      const invite: InviteRow = await store.addInvite(row)
      return { json: { invite, code } }
    },
    revoke_invite: async ({ params }) => ((await store.revokeInvite(params.invite_id)) ? DONE : NOT_FOUND),
    async list_limits() {
      const limits = Object.entries(RATES).map(([rule, { per, duration, says }]) => {
        const { value, by } = settings.get(`rate_${rule as RateRule}`)
        return { rule, per, seconds: duration, points: value, by, says }
      })
      return { json: { limits } }
    },
    async set_limit({ params, body }) {
      await settings.set(`rate_${params.rule as RateRule}`, body.points)
      return DONE
    },
    async list_jobs() {
      const runs = new Map(jobs.lastRuns().map(({ name, ...run }) => [name, run]))
      return { json: { jobs: jobs.list().map(({ name, every_ms }) => ({ job: name, every_ms, last_run: runs.get(name) ?? null })) } }
    },
    run_job: async ({ params }) => (jobs.runSoon(params.job) ? DONE : NOT_FOUND),
    async read_log_level() {
      const { value, by } = settings.get('log_level')
      return { json: { log_level: value, by } }
    },
    async set_log_level({ body }) {
      await settings.set('log_level', body.log_level)
      return DONE
    },
  }
}

function showPool(pool: Pool): object {
  return { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: pool.options.max }
}
