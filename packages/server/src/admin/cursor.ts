/** Cursors of lists: where a page ended, which nobody has to understand. */
import { fromBase64url, isUuid, SealpostError, toBase64url } from '@sealpost/protocol'

export function encodeCursor(position: number): string {
  return toBase64url(Buffer.from(String(position)))
}

/** Of the next page, when this one is full. */
export function cursorAfter<R>(rows: readonly R[], limit: number, encode: (last: R) => string): string | null {
  const last = rows.length < limit ? undefined : rows.at(-1)
  return last === undefined ? null : encode(last)
}

/** Null without one. Throws `invalid_request`. */
export function decodeCursor(cursor: string | undefined): number | null {
  if (cursor === undefined) return null
  const text = textOf(cursor)
  const position = Number(text)
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(position))
    throw new SealpostError('invalid_request', 'the cursor is not one of this list')
  return position
}

/** Of a list in the order of times: what comes and goes meanwhile moves nothing else. */
export type Place = { at: number; id: string }

export function encodePlace({ at, id }: Place): string {
  return toBase64url(Buffer.from(`${at} ${id}`))
}

/** Null without one. Throws `invalid_request`. */
export function decodePlace(cursor: string | undefined): Place | null {
  if (cursor === undefined) return null
  const [, at = '', id = ''] = /^(\d{1,16}) (.{36})$/.exec(textOf(cursor)) ?? []
  if (!Number.isSafeInteger(Number(at)) || !isUuid(id)) throw new SealpostError('invalid_request', 'the cursor is not one of this list')
  return { at: Number(at), id }
}

function textOf(cursor: string): string {
  try {
    return Buffer.from(fromBase64url(cursor)).toString('latin1')
  } catch {
    return ''
  }
}
