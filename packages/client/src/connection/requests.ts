/** Requests over the socket and their answers, matched by `id` (u32, of this client). A lost session refuses all that wait. */
import { type ClientHead, ERROR, type ErrorCode, SealpostError, type ServerMessage } from '@sealpost/protocol'
import type { Clock } from '../ports.ts'
import { type Deferred, defer, orAborted, within } from '../signal.ts'

const ANSWER_MS = 20_000
const WAITING_MAX = 64

export type Answer = Extract<ServerMessage, { head: { type: 'replay_response' | 'log_result' | 'log_entries' | 'tips' } }>
type AnswerType = Answer['head']['type']
export type AnswerOf<T extends AnswerType> = Extract<Answer, { head: { type: T } }>

export type Requests = {
  nextId(): number
  /** Sends the head that `make` gives for an id and waits for the answer of that type. Throws `unreachable`, `timeout`, `aborted`, or the code of an `error`. */
  ask<T extends AnswerType>(
    type: T,
    make: (id: number) => ClientHead,
    o?: { signal?: AbortSignal | undefined; ms?: number },
  ): Promise<AnswerOf<T>>
  /** True when somebody waited for it. */
  answer(message: Answer): boolean
  refuse(id: number, code: string): boolean
  /** The session is gone. */
  end(): void
}

export function createRequests(clock: Clock, send: (head: ClientHead) => boolean): Requests {
  const waiting = new Map<number, { type: AnswerType; answered: Deferred<Answer> }>()
  let last = 0

  function nextId(): number {
    last = (last + 1) % 0x1_0000_0000
    return last
  }

  return {
    nextId,
    async ask(type, make, o = {}) {
      if (waiting.size >= WAITING_MAX) throw new SealpostError('rate_limited', 'too many requests are waiting for an answer')
      const id = nextId()
      const answered = defer<Answer>()
      waiting.set(id, { type, answered })
      try {
        if (!send(make(id))) throw offline()
        const late = (): SealpostError => new SealpostError('timeout', 'the server did not answer in time')
        return (await within(clock, o.ms ?? ANSWER_MS, orAborted(answered.promise, o.signal), late)) as never
      } finally {
        waiting.delete(id)
      }
    },
    answer(message) {
      const request = waiting.get(message.head.id)
      if (request === undefined) return false
      if (request.type === message.head.type) request.answered.resolve(message)
      else request.answered.reject(new SealpostError('invalid_message', 'the server answered with another kind of message'))
      return true
    },
    refuse(id, code) {
      const request = waiting.get(id)
      request?.answered.reject(refusal(code))
      return request !== undefined
    },
    end() {
      for (const { answered } of waiting.values()) answered.reject(offline())
      waiting.clear()
    },
  }
}

/** What a server says of its own failures or of this device ends nothing here: such codes stand for what this side has found. */
const OURS: ReadonlySet<string> = new Set([
  'internal',
  'disk',
  'device_revoked',
  'server_identity',
  'log_fork',
  'log_withheld',
  'epoch_unreadable',
  'state_diverged',
  'state_damaged',
  'state_newer',
  'unknown_version',
] satisfies ErrorCode[])

export function refusal(code: string): SealpostError {
  if (OURS.has(code)) return new SealpostError('unavailable', `the server failed on a request (${code})`)
  const known: ErrorCode = Object.hasOwn(ERROR, code) ? (code as ErrorCode) : 'invalid_request'
  return new SealpostError(known, ERROR[known])
}

function offline(): SealpostError {
  return new SealpostError('unreachable', 'there is no connection to the server now')
}
