/**
 * REST (protocol.md §10): registers the rows of `routes.ts` with fastify in one loop, each with its contract. In this order per
 * request: request id (R05), load (R12), limit of the address, body within its bound, contract, credentials, limits of user and
 * device, the route, and the answer or a problem (R02). Nothing else in the server knows fastify. Bounds: headers in 5 s, a request in
 * 10 s, bodies by row.
 */
import { randomUUID } from 'node:crypto'
import { ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { Readable } from 'node:stream'
import { z } from 'zod'
import type { Log } from '../log.ts'
import type { Answer, Answers, Caller } from './call.ts'
import { parseInput } from './call.ts'
import type { Contract } from './contract.ts'
import { CONTRACTS } from './contracts.ts'
import { parseJsonBody } from './json-body.ts'
import { encodeProblem, problemOf } from './problems.ts'

export type RouterDeps = {
  answers: Answers
  /** The active device behind an `Authorization` header, or null. */
  authenticate(authorization: string | undefined): Promise<Caller | null>
  /** The address that limits count for; null = exempt. */
  addressOf(request: FastifyRequest): string | null
  /** Null, or how long to stay away, in ms. */
  overloaded(): number | null
  limits: {
    takeAddress(address: string | null): Promise<number | null>
    takeCaller(caller: Caller): Promise<number | null>
  }
  /** The device was seen (G11). */
  touch(caller: Caller): void
  logger: Log
}

const BODY_BYTES_MAX = Math.max(...Object.values(ROUTES).map((route) => route.bodyBytesMax))
const NO_QUERY = z.strictObject({})
const REQUEST_ID = /^[A-Za-z0-9._-]{8,128}$/

/** Not yet listening. */
export function createRouter(deps: RouterDeps): FastifyInstance {
  const { logger } = deps
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
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (_request: FastifyRequest, body: Buffer) => parseJsonBody(body))
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(everyAnswer(request.id))
  })
  app.addHook('onResponse', async (request, reply) => logRequest(logger, request, reply))
  app.setNotFoundHandler((request, reply) => send(reply, request.id, 404, { problem: { code: 'not_found' } }))
  app.setErrorHandler((error, request, reply) => refuse(logger, error, request, reply))

  for (const [name, row] of Object.entries(ROUTES) as [RouteName, Route][]) {
    const contract: Contract = CONTRACTS[name]
    app.route({
      method: row.method,
      url: row.path.replace(/\{(\w+)\}/g, ':$1'),
      bodyLimit: Math.max(1, row.bodyBytesMax),
      logLevel: 'silent',
      // before the body is read: who is above the limit does not get to send one
      onRequest: async (request, reply) => {
        if (row.unlimited) return
        const shed_ms = deps.overloaded()
        if (shed_ms !== null) return send(reply, request.id, 0, { problem: { code: 'overloaded', retry_after_ms: shed_ms } })
        const retry_after_ms = await deps.limits.takeAddress(deps.addressOf(request))
        if (retry_after_ms !== null) return send(reply, request.id, 0, { problem: { code: 'rate_limited', retry_after_ms } })
      },
      handler: async (request, reply) => send(reply, request.id, contract.answer.status, await answer(name, row, contract, request, reply)),
    })
  }
  return app

  async function answer(name: RouteName, row: Route, contract: Contract, request: FastifyRequest, reply: FastifyReply): Promise<Answer> {
    if (row.body === 'bytes' && !(request.body instanceof Uint8Array)) return { problem: { code: 'invalid_request' } }
    // who asks comes before what is asked: a stranger learns nothing from the shape of a refusal
    const caller = row.auth === 'token' ? await deps.authenticate(request.headers.authorization) : null
    if (row.auth === 'token' && caller === null) return { problem: { code: 'unauthorized' } }
    if (caller !== null) {
      const retry_after_ms = await deps.limits.takeCaller(caller)
      if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
      deps.touch(caller)
    }
    const input = {
      params: contract.params === undefined ? undefined : parseInput(contract.params, request.params),
      query: parseQuery(contract, request.query),
      headers: contract.headers === undefined ? undefined : parseInput(contract.headers.strip(), request.headers),
      body: row.body === 'bytes' ? request.body : contract.body === undefined ? undefined : parseInput(contract.body, request.body),
    }
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort())
    const call = { ...input, caller, address: deps.addressOf(request), request_id: request.id, gone: gone.signal }
    // the contract of this very route gave the parts of the call their types
    return (deps.answers[name] as (call: unknown) => Promise<Answer>)(call)
  }
}

/** A route without a query takes none: a misspelt or misplaced member is told, and a token in an address is refused. */
function parseQuery(contract: Contract, query: unknown): unknown {
  if (contract.query !== undefined) return parseInput(contract.query, { ...(query as object) })
  if (Object.keys(query as object).length > 0) return parseInput(NO_QUERY, query)
  return undefined
}

function send(reply: FastifyReply, request_id: string, status: number, answer: Answer): FastifyReply {
  if ('problem' in answer) {
    const { status: refused, headers, body } = encodeProblem(answer.problem, request_id)
    return reply.code(refused).headers(headers).send(JSON.stringify(body))
  }
  if ('take_over' in answer) {
    reply.hijack()
    for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) reply.raw.setHeader(name, value)
    answer.take_over(reply.raw)
    return reply
  }
  reply.code(status)
  if ('stream' in answer) return reply.type(answer.media).send(Readable.from(answer.stream, { objectMode: false }))
  if ('headers' in answer && answer.headers !== undefined) reply.headers(answer.headers)
  if ('bytes' in answer) return reply.type(answer.media ?? 'application/octet-stream').send(Buffer.from(answer.bytes))
  if ('json' in answer) {
    if (answer.etag !== undefined) reply.header('etag', `"${answer.etag}"`)
    return reply.type('application/json; charset=utf-8').send(JSON.stringify(answer.json))
  }
  return reply.send()
}

function refuse(logger: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error)
  if (problem.code === 'internal' || problem.code === 'unavailable')
    logger.error({ request_id: request.id, err: error }, 'a request failed')
  // also of a request that was refused before any hook saw it
  return send(reply.headers(everyAnswer(request.id)), request.id, 0, { problem })
}

function everyAnswer(request_id: string): Record<string, string> {
  return { 'x-request-id': request_id, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }
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
