/** REST put together: which part of the server answers which routes, under which limits. Not yet listening. */
import { ROUTES } from '@sealpost/protocol'
import type { FastifyInstance } from 'fastify'
import { notingRefusals } from './noted-refusals.ts'
import type { Audit } from '../audit/recorder.ts'
import type { Config } from '../config/config.ts'
import { createAddressRule } from '../limits/address.ts'
import type { Log } from '../telemetry/log.ts'
import type { Bus, Store } from '../ports/store.ts'
import type { Relay } from '../relay/relay.ts'
import type { Secrets } from '../data/secrets.ts'
import { authenticate, createAuthRoutes } from './auth/routes.ts'
import type { Caller, RouteAnswers } from './call.ts'
import { CONTRACTS } from './contracts.ts'
import { createDocuments, type DocumentDeps } from './docs/routes.ts'
import { createDeviceRoutes } from './devices/routes.ts'
import { createEventRoutes } from './events/routes.ts'
import { createExportRoutes } from './export/routes.ts'
import { createLogRoutes } from './log/routes.ts'
import { createPairingRoutes } from './pairing/routes.ts'
import { createRouter } from './router.ts'
import { createSlotWaits } from './pairing/slot-waits.ts'
import { createStatusRoutes } from './status/routes.ts'
import { SUSPENDED } from './auth/standing.ts'
import { createRefreshTokens } from './auth/refresh-tokens.ts'
import { createUserRoutes } from './user/routes.ts'
import type { KeySet } from './auth/signing-keys.ts'
import { isExpired } from './auth/jwt.ts'
import { createTokens } from './auth/tokens.ts'

export type HttpDeps = {
  store: Store
  bus: Pick<Bus, 'publish'>
  /** Events and presence are those of the sockets. */
  relay: Relay
  keys: KeySet
  secrets: Pick<Secrets, 'server_key' | 'jwt_sign_seed'>
  /** `signup` may change while the relay runs. */
  config: Pick<Config, 'signup' | 'trusted_proxies' | 'clock_skew_ms' | 'quota_bytes' | 'docs'> & Partial<Pick<Config, 'public_url'>>
  /** Made of the lists by `api/`. */
  documents: Required<Omit<DocumentDeps, 'enabled'>>
  audit: Pick<Audit, 'note' | 'write'>
  draining(): boolean
  degraded(): boolean
  logger: Log
}

/** Where devices come by TLS they shall come by nothing else (RFC 6797). */
const HTTPS_ONLY = { 'strict-transport-security': 'max-age=31536000' }

/** Closing it ends every long poll first. */
export function createHttp(deps: HttpDeps): FastifyInstance {
  const { store, secrets, logger, config, bus, relay, audit } = deps
  const limits = relay.rates
  const { server_key } = secrets
  const skew_ms = config.clock_skew_ms
  const waits = createSlotWaits()
  const auth = {
    store,
    server_key,
    skew_ms,
    tokens: createTokens(deps.keys, server_key, () => store.now()),
    refresh_tokens: createRefreshTokens(secrets.jwt_sign_seed),
    keys: deps.keys,
    bus,
    audit,
    logger,
  }

  const answers: RouteAnswers<typeof CONTRACTS> = {
    ...createStatusRoutes({ store, server_key, draining: deps.draining, degraded: deps.degraded, logger }),
    ...createLogRoutes({ store, server_key, skew_ms, bus, signup: () => config.signup, limits }),
    ...createAuthRoutes(auth),
    ...createDeviceRoutes({ store, bus }),
    ...createUserRoutes({ store, server_key, skew_ms, bus, quota_bytes: config.quota_bytes, logger }),
    ...createExportRoutes({ store, server_key, limits, relay, logger }),
    ...createEventRoutes({ store, server_key, skew_ms, bus, relay }),
    ...createDocuments({ ...deps.documents, enabled: config.docs }),
    ...createPairingRoutes({ store, limits, waits }),
  }
  const app = createRouter<Caller>({
    routes: ROUTES,
    contracts: CONTRACTS,
    answers: notingRefusals(ROUTES, answers, audit),
    admit: async (name, { authorization, ...origin }) => {
      const caller = await authenticate(auth, authorization)
      if (caller === 'suspended') return SUSPENDED
      if (caller === null) {
        if (authorization !== undefined && !isExpired(authorization, store.now()))
          audit.note({ actor: 'stranger', action: 'token_refused', outcome: 'refused', target: name, origin })
        return { problem: { code: 'unauthorized' } }
      }
      const { user_id, device_id } = caller
      const retry_after_ms = (await limits.take('rest_device', device_id)) ?? (await limits.take('rest_user', user_id))
      if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
      relay.touch(caller)
      return { caller }
    },
    headers: config.public_url?.startsWith('https:') === true ? HTTPS_ONLY : {},
    addresses: createAddressRule(config.trusted_proxies),
    overloaded: relay.overloaded,
    takeAddress: (address) => limits.take('rest_address', address),
    logger,
  })
  app.addHook('preClose', async () => waits.close())
  return app
}
