/** `Http` on the global fetch: a bounded answer, no redirects, failures with a code. */
import { type Bytes, concat, SealpostError } from '@sealpost/protocol'
import type { Http, HttpRequest } from '../ports.ts'
import { networkError } from './network-errors.ts'

const ANSWER_BYTES_MAX = 8 * 1_048_576

export const nodeHttp: Http = {
  async request(request) {
    const timeout = AbortSignal.timeout(request.timeout_ms)
    try {
      const response = await send(request, timeout)
      const body = await readBody(response)
      return { status: response.status, headers: Object.fromEntries(response.headers), body }
    } catch (cause) {
      throw translated(request, timeout, cause)
    }
  },
  async stream(request) {
    const late = new AbortController()
    const watch = (): NodeJS.Timeout => setTimeout(() => late.abort(), request.timeout_ms)
    let timer = watch()
    try {
      const response = await send(request, late.signal)
      clearTimeout(timer)
      return { status: response.status, headers: Object.fromEntries(response.headers), body: parts(response) }
    } catch (cause) {
      clearTimeout(timer)
      throw translated(request, late.signal, cause)
    }

    async function* parts(response: Response): AsyncGenerator<Bytes> {
      try {
        timer = watch()
        for await (const part of response.body ?? []) {
          clearTimeout(timer)
          yield part
          timer = watch()
        }
      } catch (cause) {
        throw translated(request, late.signal, cause)
      } finally {
        clearTimeout(timer)
      }
    }
  },
}

function send(request: HttpRequest, timeout: AbortSignal): Promise<Response> {
  return fetch(request.url, {
    method: request.method,
    redirect: 'manual',
    signal: request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout]),
    ...(request.headers === undefined ? {} : { headers: request.headers }),
    ...(request.body === undefined ? {} : { body: request.body as Uint8Array<ArrayBuffer> }),
  })
}

async function readBody(response: Response): Promise<Bytes> {
  const parts: Bytes[] = []
  let length = 0
  for await (const part of response.body ?? []) {
    length += part.length
    if (length > ANSWER_BYTES_MAX) throw new SealpostError('too_large', 'the answer of the server is too long')
    parts.push(part)
  }
  return concat(...parts)
}

function translated(request: HttpRequest, timeout: AbortSignal, cause: unknown): SealpostError {
  if (cause instanceof SealpostError) return cause
  if (request.signal?.aborted === true) return new SealpostError('aborted', 'ended by the caller')
  const host = URL.canParse(request.url) ? new URL(request.url).host : 'the server'
  if (timeout.aborted) return new SealpostError('timeout', `${host} did not answer in time`, { cause })
  const why = networkError(cause)
  return new SealpostError('unreachable', `${host} cannot be reached${why === undefined ? '' : `: ${why.message}`}`, {
    cause: why ?? cause,
  })
}
