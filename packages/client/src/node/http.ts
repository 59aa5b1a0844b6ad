/** `Http` on the global fetch: a bounded answer, no redirects, failures with a code. */
import { type Bytes, concat, SealpostError } from '@sealpost/protocol'
import type { Http, HttpRequest } from '../ports.ts'

const ANSWER_BYTES_MAX = 8 * 1_048_576

export const nodeHttp: Http = {
  async request(request) {
    const timeout = AbortSignal.timeout(request.timeout_ms)
    const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout])
    try {
      const response = await fetch(request.url, {
        method: request.method,
        redirect: 'manual',
        signal,
        ...(request.headers === undefined ? {} : { headers: request.headers }),
        ...(request.body === undefined ? {} : { body: request.body as Uint8Array<ArrayBuffer> }),
      })
      const body = await readBody(response)
      return { status: response.status, headers: Object.fromEntries(response.headers), body }
    } catch (cause) {
      throw translated(request, timeout, cause)
    }
  },
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
  return new SealpostError('unreachable', `${host} cannot be reached`, { cause })
}
