/**
 * REST (protocol.md §10): registers the rows of `routes.ts` with fastify in one loop. In this order per request: request id (R05),
 * limit of the address (R12), body within its bound, credentials, the route, and the answer or a problem (R02). Nothing else in
 * the server knows fastify. Bounds: headers in 5 s, a request in 10 s, bodies by row.
 */
import { randomUUID } from 'node:crypto'
import { ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Config } from '../config.ts'
import type { Log } from '../log.ts'
import type { AssertionStore, Bus, LogStore, PairingStore, SessionStore, Store } from '../ports.ts'
import type { Secrets } from '../secrets.ts'
import { createAddressRule } from './address.ts'
import { authenticate, createAuthRoutes } from './auth-routes.ts'
import type { Answer, Answerer, Answers } from './call.ts'
import { createLogRoutes } from './log-routes.ts'
import { createPairingRoutes } from './pairing-routes.ts'
import { encodeProblem, problemOf } from './problems.ts'
import { createRateLimits } from './rate-limits.ts'
import { createSlotWaits } from './slot-waits.ts'
import { createStatusRoutes } from './status-routes.ts'
import { createTokens } from './tokens.ts'

export type HttpDeps = {
  store: LogStore & PairingStore & AssertionStore & Pick<SessionStore, 'findDevice'> & Pick<Store, 'ping' | 'now'>
  bus: Pick<Bus, 'publish'>
  secrets: Pick<Secrets, 'server_key' | 'jwt_sign_seed'>
  config: Pick<Config, 'signup' | 'trusted_proxies' | 'clock_skew_ms'>
  draining(): boolean
  logger: Log
}

const BODY_BYTES_MAX = Math.max(...Object.values(ROUTES).map((route) => route.bodyBytesMax))
const REQUEST_ID = /^[A-Za-z0-9._-]{8,128}$/
const QUIET: ReadonlySet<RouteName> = new Set(['live', 'ready'])

/** Not yet listening. Closing it ends every long poll first. */
export function createHttp(deps: HttpDeps): FastifyInstance {
  const { store, secrets, logger } = deps
  const limits = createRateLimits()
  const waits = createSlotWaits()
  const addresses = createAddressRule(deps.config.trusted_proxies)
  const tokens = createTokens([secrets.jwt_sign_seed], secrets.server_key, () => store.now())
  const skew_ms = deps.config.clock_skew_ms
  const auth = { store, server_key: secrets.server_key, skew_ms, tokens }
  const answers: Answers = {
    ...createStatusRoutes({ store, server_key: secrets.server_key, draining: deps.draining, logger }),
    ...createLogRoutes({ store, server_key: secrets.server_key, skew_ms, bus: deps.bus, signup: deps.config.signup, limits }),
    ...createAuthRoutes(auth),
    ...createPairingRoutes({ store, limits, waits }),
  }

  const app = Fastify({
    logger: false,
    genReqId: (request) => requestIdOf(request.headers['x-request-id']),
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: 10_000,
    http: { headersTimeout: 5_000 },
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 64 },
    frameworkErrors: (error, request, reply) => {
      void refuse(logger, error, request, reply)
    },
  })
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({ 'x-request-id': request.id, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  })
  app.addHook('onResponse', async (request, reply) => logRequest(logger, request, reply))
  app.addHook('preClose', async () => waits.close())
  app.setNotFoundHandler((request, reply) => send(reply, request.id, { problem: { code: 'not_found' } }))
  app.setErrorHandler((error, request, reply) => refuse(logger, error, request, reply))

  for (const [name, row] of Object.entries(ROUTES) as [RouteName, Route][]) {
    app.route({
      method: row.method,
      url: row.path.replace(/\{(\w+)\}/g, ':$1'),
      bodyLimit: Math.max(1, row.bodyBytesMax),
      logLevel: 'silent',
      // before the body is read: who is above the limit does not get to send one
      onRequest: async (request, reply) => {
        if (QUIET.has(name)) return
        const retry_after_ms = await limits.take('address', addressOf(request))
        if (retry_after_ms !== null) return send(reply, request.id, { problem: { code: 'rate_limited', retry_after_ms } })
      },
      handler: async (request, reply) => send(reply, request.id, await answer(row, answers[name], request, reply)),
    })
  }
  return app

  function addressOf(request: FastifyRequest): string | null {
    return addresses.limitedAddress(request.raw.socket.remoteAddress, request.headers)
  }

  async function answer(row: Route, answerer: Answerer, request: FastifyRequest, reply: FastifyReply): Promise<Answer> {
    if (row.body === 'bytes' && !(request.body instanceof Uint8Array)) return { problem: { code: 'invalid_request' } }
    const caller = row.auth === 'token' ? await authenticate(auth, request.headers.authorization) : null
    if (row.auth === 'token' && caller === null) return { problem: { code: 'unauthorized' } }
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort())
    return answerer({
      params: request.params as Record<string, string>,
      query: request.query,
      body: request.body,
      caller,
      address: addressOf(request),
      request_id: request.id,
      gone: gone.signal,
    })
  }
}

function send(reply: FastifyReply, request_id: string, answer: Answer): FastifyReply {
  if ('problem' in answer) {
    const { status, headers, body } = encodeProblem(answer.problem, request_id)
    return reply.code(status).headers(headers).send(JSON.stringify(body))
  }
  if ('bytes' in answer) return reply.type('application/octet-stream').send(Buffer.from(answer.bytes))
  if ('json' in answer) return reply.type('application/json; charset=utf-8').send(JSON.stringify(answer.json))
  return reply.code(204).send()
}

function refuse(logger: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error)
  if (problem.code === 'internal' || problem.code === 'unavailable')
    logger.error({ request_id: request.id, err: error }, 'a request failed')
  reply.header('x-request-id', request.id)
  return send(reply, request.id, { problem })
}

/** The route's pattern and not the URL: ids of mailboxes stay out of the log. */
function logRequest(logger: Log, request: FastifyRequest, reply: FastifyReply): void {
  logger.debug(
    {
      request_id: request.id,
      method: request.method,
      route: request.routeOptions.url,
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime),
    },
    'request',
  )
}

function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID()
}
