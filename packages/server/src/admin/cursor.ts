/** Cursors of lists: where a page ended, which nobody has to understand. */
import { fromBase64url, SealpostError, toBase64url } from '@sealpost/protocol'

export function encodeCursor(position: number): string {
  return toBase64url(Buffer.from(String(position)))
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

/** Of a list whose newest come first. */
export function encodeInviteCursor({ created_at, invite_id }: { created_at: number; invite_id: string }): string {
  return toBase64url(Buffer.from(`${created_at} ${invite_id}`))
}

/** Null without one. Throws `invalid_request`. */
export function decodeInviteCursor(cursor: string | undefined): { created_at: number; invite_id: string } | null {
  if (cursor === undefined) return null
  const match = /^(\d{1,16}) ([0-9a-f-]{36})$/.exec(textOf(cursor))
  if (match === null) throw new SealpostError('invalid_request', 'the cursor is not one of this list')
  return { created_at: Number(match[1]), invite_id: String(match[2]) }
}

function textOf(cursor: string): string {
  try {
    return Buffer.from(fromBase64url(cursor)).toString('latin1')
  } catch {
    return ''
  }
}
