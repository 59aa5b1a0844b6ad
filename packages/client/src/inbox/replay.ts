/**
 * Paging the backlog of a session (protocol.md §7): the next page is asked for as soon as one arrived, while it is verified.
 * Bound: `PAGES_AHEAD` pages asked for and not yet stored.
 */
import { type ClientHead, type ErrorCode, LIMITS, SealpostError, type ServerHeadOf } from '@sealpost/protocol'
import { refusal, type Requests } from '../connection/requests.ts'

const PAGES_AHEAD = 3

export type ReplayPorts = {
  requests: Requests
  send(head: ClientHead): boolean
  /** Highest own number known as acked. */
  acked(): number
  /** Messages not yet stored. */
  queued(): number
  /** Events of a page that the session allows. */
  limit(): number
}

export type Replay = {
  begin(): void
  /** Asks for the next page when there is one and not too many wait. */
  ask(): void
  /** False: the answer to another request. */
  take(page: ServerHeadOf<'replay_response'>): boolean
  /** What follows of a refused request: null when it was not the replay's, else the error that ends the session, or `again`. */
  refused(id: number, code: string): SealpostError | 'again' | null
  end(): void
}

/** `pending`: a page is asked for and has not arrived. `continued`: it was asked for with a token. */
type Pages = { id: number; token: string | undefined; continued: boolean; pending: boolean; more: boolean }

export function createReplay(ports: ReplayPorts): Replay {
  let pages: Pages | null = null

  function begin(): void {
    pages = { id: 0, token: undefined, continued: false, pending: false, more: true }
    send(pages)
  }

  function send(of: Pages): void {
    const { token } = of
    of.id = ports.requests.nextId()
    of.pending = true
    of.continued = token !== undefined
    of.token = undefined
    ports.send({
      type: 'replay_request',
      id: of.id,
      last_ack_device_seq: ports.acked(),
      limit: Math.min(LIMITS.replayEventsMax, ports.limit()),
      ...(token === undefined ? {} : { continuation_token: token }),
    })
  }

  return {
    begin,
    ask() {
      if (pages === null || pages.pending || !pages.more || ports.queued() >= PAGES_AHEAD) return
      send(pages)
    },
    take(page) {
      if (pages === null || page.id !== pages.id) return false
      pages.pending = false
      pages.token = page.continuation_token
      pages.more = page.has_more
      return true
    },
    refused(id, code) {
      if (pages === null || id !== pages.id) return null
      // without a token there is nothing that another request would leave out: a fresh session, after its pause
      if (code !== ('invalid_token' satisfies ErrorCode) || !pages.continued) return refusal(code)
      begin()
      return 'again'
    },
    end() {
      pages = null
    },
  }
}
