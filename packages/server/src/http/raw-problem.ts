/**
 * Problems for requests that HTTP could not read, or that ask for something else than HTTP: written to the socket itself, as
 * `problems.ts` has them (RFC 9457, R02, R05). The connection ends with them.
 */
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { encodeProblem, type Problem } from './problems.ts'

/** Whoever does not take the answer is not waited for. */
const TAKE_MS = 1_000
/** On every answer, whatever was asked. */
export function everyAnswer(request_id: string): Record<string, string> {
  return {
    'x-request-id': request_id,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  }
}

const REQUEST_ID = /^[A-Za-z0-9._-]{8,128}$/

/** The one that was sent, if it is well formed (R05). */
export function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID()
}

export function sendRawProblem(socket: Duplex, problem: Problem, request_id: string): void {
  socket.on('error', () => {})
  // an answer may be half written, or nobody be there to read one
  if (!socket.writable || socket.destroyed) return void socket.destroy()
  const { status, headers, body } = encodeProblem(problem, request_id)
  const text = JSON.stringify(body)
  const all = { ...headers, ...everyAnswer(request_id), 'content-length': Buffer.byteLength(text), connection: 'close' }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${text}`)
  setTimeout(() => socket.destroy(), TAKE_MS).unref()
}

/** What Node's parser found wrong. */
export function problemOfParser(error: Error): Problem {
  const code = 'code' in error ? error.code : undefined
  if (code === 'HPE_HEADER_OVERFLOW') return { code: 'headers_too_large' }
  return { code: code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'timeout' : 'invalid_request' }
}
