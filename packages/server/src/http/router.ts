/**
 * REST (protocol.md §10): registers the rows of a list of routes with fastify in one loop, each with its contract. In this order per
 * request: request id (R05), load (R12), limit of the address, credentials and the limits of whoever has them; then the body within its
 * bound, the contract, the route, and the answer or a problem (R02). A stranger has nothing read or parsed where a token is asked for.
 * Nothing else in the server knows fastify. Bounds: headers in 5 s, a request in 10 s, bodies by row, connections as `connections.ts` says.
 */
import type { Socket } from 'node:net'
import type { Route } from '@sealpost/protocol'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { AddressRule } from '../limits/address.ts'
import type { Log } from '../telemetry/log.ts'
import { type Answer, type AnyAnswer, type AnyAnswers, parseInput } from './call.ts'
import type { Contract } from './contract.ts'
import { boundConnections, CONNECTION_BOUNDS } from './connections.ts'
import { parseJsonBody } from './json-body.ts'
import { encodeProblem, type Problem, problemOf } from './problems.ts'
import { everyAnswer, problemOfParser, requestIdOf, sendRawProblem } from './raw-problem.ts'

/** What is known of a request before its body is read. */
export type Asking = { authorization: string | undefined; address: string | null; request_id: string }

/** A list of routes and all that serves it. */
export type Surface<Who> = {
  routes: Readonly<Record<string, Route>>
  contracts: Readonly<Record<string, Contract>>
  answers: AnyAnswers
  /** Of a route with auth `token`: who asks, if whoever it is may ask for it now. */
  admit(name: string, asking: Asking): Promise<{ caller: Who } | { problem: Problem }>
}

export type RouterDeps<Who> = Surface<Who> & {
  /** Whom limits count for. */
  addresses: AddressRule
  /** Null, or how long to stay away, in ms. */
  overloaded(): number | null
  /** On every answer of a route, beside those of `raw-problem.ts`. */
  headers?: Readonly<Record<string, string>>
  /** Null, or the ms until this address may ask again. */
  takeAddress(address: string | null): Promise<number | null>
  logger: Log
  /** Of requests that are under way when it closes. */
  close_ms?: number
}

const NO_QUERY = z.strictObject({})
const REQUEST_MS = 10_000
const HEADERS_MS = 5_000
/** How late the end of a request that takes too long may come. */
const CHECK_MS = 1_000
/** How long a request that is under way may take once the router closes; a peer that sends nothing is not waited for any longer. */
const CLOSE_MS = 5_000

/** Not yet listening. */
export function createRouter<Who>(deps: RouterDeps<Who>): FastifyInstance {
  const { logger, routes, contracts, answers } = deps
  const addressOf = (request: FastifyRequest): string | null =>
    deps.addresses.limitedAddress(request.raw.socket.remoteAddress, request.headers)
  const closeMs = deps.close_ms ?? CLOSE_MS
  const callers = new WeakMap<FastifyRequest, Who>()
  const gones = new WeakMap<FastifyRequest, AbortSignal>()
  const app = Fastify({
    logger: false,
    genReqId: (request) => requestIdOf(request.headers['x-request-id']),
    bodyLimit: Math.max(...Object.values(routes).map((route) => route.bodyBytesMax)),
    requestTimeout: REQUEST_MS,
    http: { headersTimeout: HEADERS_MS, connectionsCheckingInterval: CHECK_MS },
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 64 },
    frameworkErrors: (error, request, reply) => {
      void refuse(logger, error, request, reply)
    },
    clientErrorHandler: (error, socket: Socket) => sendRawProblem(socket, problemOfParser(error), requestIdOf(undefined)),
  })
  boundConnections(app.server, { ...CONNECTION_BOUNDS, isExempt: deps.addresses.isProxy })
  // what may be expected is 100-continue, which Node answers itself
  app.server.on('checkExpectation', (request, response) => {
    const { status, headers, body } = encodeProblem({ code: 'invalid_request' }, requestIdOf(request.headers['x-request-id']))
    const text = JSON.stringify(body)
    const framing = { 'content-length': Buffer.byteLength(text), connection: 'close' }
    response.writeHead(status, { ...headers, ...everyAnswer(String(body.request_id)), ...framing }).end(text)
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (_request: FastifyRequest, body: Buffer) => parseJsonBody(body))
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({ ...everyAnswer(request.id), ...deps.headers })
    gones.set(request, goneOf(reply))
  })
  app.addHook('preClose', async () => {
    // Node itself checks no deadlines any more once the server closes
    const late = setTimeout(() => app.server.closeAllConnections(), closeMs)
    app.server.once('close', () => clearTimeout(late))
  })
  app.addHook('onResponse', async (request, reply) => logRequest(logger, request, reply))
  app.setNotFoundHandler((request, reply) => send(reply, request.id, 404, { problem: { code: 'not_found' } }))
  app.setErrorHandler((error, request, reply) => refuse(logger, error, request, reply))

  for (const [name, row] of Object.entries(routes)) {
    const contract = contracts[name]
    const answerer = answers[name]
    if (contract === undefined || answerer === undefined) throw new TypeError(`the route ${name} has no contract or no answer`)
    app.route({
      method: row.method,
      url: row.path.replace(/\{(\w+)\}/g, ':$1'),
      bodyLimit: Math.max(1, row.bodyBytesMax),
      logLevel: 'silent',
      // before the body is read: who may not ask does not get to send one
      onRequest: async (request, reply) => {
        const admitted = await admit(name, row, request)
        if (admitted !== null && 'problem' in admitted) return send(reply, request.id, 0, admitted)
        if (admitted !== null) callers.set(request, admitted.caller)
      },
      handler: async (request, reply) => {
        const answer = await answerRequest(row, contract, answerer, request, reply)
        return send(reply, request.id, contract.answer.status, answer)
      },
    })
  }
  return app

  async function admit(name: string, row: Route, request: FastifyRequest): Promise<{ caller: Who } | { problem: Problem } | null> {
    if (row.unlimited) return null
    const shed_ms = deps.overloaded()
    if (shed_ms !== null) return { problem: { code: 'overloaded', retry_after_ms: shed_ms } }
    const address = addressOf(request)
    const retry_after_ms = await deps.takeAddress(address)
    if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
    if (row.auth !== 'token') return null
    return deps.admit(name, { authorization: request.headers.authorization, address, request_id: request.id })
  }

  async function answerRequest(
    row: Route,
    contract: Contract,
    answerer: AnyAnswer,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<Answer> {
    if (row.body === 'bytes' && !(request.body instanceof Uint8Array)) return { problem: { code: 'invalid_request' } }
    const input = {
      params: contract.params === undefined ? undefined : parseInput(contract.params, request.params),
      query: parseQuery(contract, request.query),
      headers: contract.headers === undefined ? undefined : parseInput(contract.headers.strip(), request.headers),
      body: row.body === 'bytes' ? request.body : contract.body === undefined ? undefined : parseInput(contract.body, request.body),
    }
    const caller = callers.get(request) ?? null
    const gone = gones.get(request) ?? goneOf(reply)
    const call = { ...input, caller, address: addressOf(request), request_id: request.id, gone }
    // the contract of this very route gave the parts of the call their types
    return (answerer as (call: unknown) => Promise<Answer>)(call)
  }
}

/** From the first moment of the request on: whoever leaves while it is admitted is gone before its route is asked. */
function goneOf(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  if (reply.raw.destroyed) gone.abort()
  return gone.signal
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
  if ('headers' in answer && answer.headers !== undefined) reply.headers(answer.headers)
  if ('bytes' in answer) return reply.type(typeOf(answer.media ?? 'application/octet-stream')).send(Buffer.from(answer.bytes))
  if ('json' in answer) {
    if (answer.etag !== undefined) reply.header('etag', `"${answer.etag}"`)
    return reply.type('application/json; charset=utf-8').send(JSON.stringify(answer.json))
  }
  return reply.send()
}

/** Text says how it is written. */
function typeOf(media: string): string {
  return media.startsWith('text/') ? `${media}; charset=utf-8` : media
}

function refuse(logger: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error)
  // who left in the middle of a request is no failure of the server
  if (request.raw.destroyed) logger.debug({ request_id: request.id, err: error }, 'a request was broken off')
  else if (problem.code === 'internal' || problem.code === 'unavailable')
    logger.error({ request_id: request.id, err: error }, 'a request failed')
  // also of a request that was refused before any hook saw it
  return send(reply.headers(everyAnswer(request.id)), request.id, 0, { problem })
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
