/** Places among events, as REST takes and gives them (protocol.md §3), with an example. */
import { z } from 'zod'
import { EVENT_ID, HISTORY_ID, TIME_MS } from '../examples.ts'
import { count, countText, key, uuid } from '../fields.ts'

export const tip = z.strictObject({ event_id: uuid, received_at: count })
export const CURSOR = { event_id: EVENT_ID, received_at: TIME_MS, history_id: HISTORY_ID }

const position = countText(0, Number.MAX_SAFE_INTEGER)
/** All three or none: only then the position is judged. */
export const cursor = {
  event_id: uuid.optional().describe('Of the event at after_position; with received_at and history_id.'),
  received_at: position.optional().describe('Of the same event, in ms.'),
  history_id: key.optional().describe('Of the store that numbered it.'),
}
export const after_position = position.optional().describe('Exclusive; 0 by default.')

export const reset = z.strictObject({ reason: z.enum(['history_changed', 'cursor_unknown']), from_position: count })
