/** One page of a query (protocol.md §7), asked of the server: whoever asked for it verifies it. */
import { LIMITS } from '@sealpost/protocol'
import type { Requests } from '../connection/requests.ts'

/** As the server sent it. */
export type QueryPage = {
  after: number
  upto: number
  has_more: boolean
  continuation_token: string | null
  floor: number
  body: Uint8Array
}

export type QueryRequest = { after_position: number; streams: string[]; limit: number; continuation_token: string | null }

/** `events_max`: what the session allows in a page. Throws what `Requests.ask` throws. */
export async function askPage(
  requests: Requests,
  request: QueryRequest,
  events_max: number = LIMITS.replayEventsDefault,
  signal?: AbortSignal,
): Promise<QueryPage> {
  const { head, body } = await requests.ask(
    'replay_response',
    (id) => ({
      type: 'replay_request',
      id,
      last_ack_device_seq: 0,
      query: true,
      after_position: request.after_position,
      streams: request.streams,
      limit: Math.min(request.limit, events_max),
      ...(request.continuation_token === null ? {} : { continuation_token: request.continuation_token }),
    }),
    { signal },
  )
  const { after, upto, has_more, floor } = head
  return { after, upto, has_more, floor, continuation_token: head.continuation_token ?? null, body }
}
