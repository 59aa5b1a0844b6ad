/**
 * The listener of admins put together (G24): its own routes, tokens and keys, on an address that devices need not reach. Nothing that a device can
 * present is worth anything here, nor the other way round. Not yet listening.
 */
import { ADMIN_ROUTES } from '@sealpost/protocol'
import type { FastifyInstance } from 'fastify'
import type { Audit } from '../audit/recorder.ts'
import type { Config } from '../config/config.ts'
import { createDocuments, type DocumentDeps } from '../http/docs/routes.ts'
import { createRouter } from '../http/router.ts'
import type { SigningKeys } from '../http/auth/signing-keys.ts'
import { createStatusRoutes } from '../http/status/routes.ts'
import type { Jobs } from '../jobs/schedule.ts'
import { createAddressRule } from '../limits/address.ts'
import type { Log } from '../telemetry/log.ts'
import type { Bus, NodeFigures } from '../ports/store.ts'
import type { Relay } from '../relay/relay.ts'
import type { Secrets } from '../data/secrets.ts'
import type { Settings } from '../config/settings.ts'
import type { PostgresStore } from '../store/store.ts'
import { createAdminRoutes } from './admins/routes.ts'
import { createAdminTokens } from './admins/tokens.ts'
import { createAuditRoutes } from './audit/routes.ts'
import { admitAdmin, audited } from './authority.ts'
import type { AdminAnswers, AdminCaller } from './call.ts'
import { CONTRACTS } from './contracts.ts'
import { createInviteRoutes } from './invites/routes.ts'
import { createJobRoutes } from './jobs/routes.ts'
import { createKeyRoutes } from './keys/routes.ts'
import { createSettingRoutes } from './settings/routes.ts'
import { createSystemRoutes } from './system/routes.ts'
import { createAdminUserRoutes } from './users/routes.ts'

export type AdminHttpDeps = {
  store: PostgresStore
  bus: Pick<Bus, 'publish'>
  relay: Relay
  figures(): NodeFigures
  keys: Readonly<Record<'rest' | 'admin', SigningKeys>>
  secrets: Pick<Secrets, 'server_key'>
  settings: Settings
  jobs: Pick<Jobs, 'list' | 'lastRuns' | 'runSoon'>
  /** Made of the lists by `api/`. */
  documents: Pick<DocumentDeps, 'openapi'>
  audit: Audit
  config: Pick<Config, 'trusted_proxies' | 'clock_skew_ms' | 'shown'>
  draining(): boolean
  degraded(): boolean
  logger: Log
}

export function createAdminHttp(deps: AdminHttpDeps): FastifyInstance {
  const { store, bus, relay, figures, keys, secrets, settings, jobs, audit, config, logger } = deps
  const { server_key } = secrets
  const tokens = createAdminTokens(keys.admin, server_key, () => store.now())
  const limits = relay.rates
  // its own documents, whatever devices are shown
  const { read_openapi, read_docs, read_docs_file } = createDocuments(deps.documents)
  const answers: AdminAnswers<typeof CONTRACTS> = {
    ...createStatusRoutes({ store, server_key, draining: deps.draining, degraded: deps.degraded, logger }),
    ...createAdminRoutes({ store, server_key, skew_ms: config.clock_skew_ms, tokens, audit }),
    ...createKeyRoutes(keys),
    ...createAdminUserRoutes({ store, bus, sessions: relay.sessions }),
    ...createSystemRoutes({ store, variables: config.shown, figures }),
    ...createSettingRoutes(settings),
    ...createInviteRoutes(store),
    ...createJobRoutes(jobs),
    ...createAuditRoutes(store, audit),
    read_openapi,
    read_docs,
    read_docs_file,
  }
  return createRouter<AdminCaller>({
    routes: ADMIN_ROUTES,
    contracts: CONTRACTS,
    answers: audited(answers, audit),
    admit: (name, asking) => admitAdmin({ store, tokens, limits, audit }, name, asking),
    addresses: createAddressRule(config.trusted_proxies),
    // who has to help an overloaded relay is let in
    overloaded: () => null,
    takeAddress: (address) => limits.take('admin_address', address),
    logger,
  })
}
