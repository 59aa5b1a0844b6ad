/** Values that the examples of the contracts share: of the right form, of nobody. */
import { toBase64url, utf8 } from '@sealpost/protocol'

const filled = (length: number, byte: number): string => toBase64url(new Uint8Array(length).fill(byte))

export const USER_ID = filled(32, 0x11)
export const SERVER_KEY = filled(32, 0x33)
export const LOG_HEAD = filled(32, 0x44)
export const HISTORY_ID = filled(32, 0x55)
export const SIGNATURE = filled(64, 0x66)
export const BOX = filled(1_168, 0x77)
export const DEVICE_ID = '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea'
export const OTHER_DEVICE_ID = '0d6a1f0e-2b3c-4d5e-8f60-718293a4b5c6'
export const EVENT_ID = '019aa7a0-5c00-7000-8000-000000000001'
export const SESSION_ID = 'b5a1b2c3-d4e5-4f60-9172-8394a5b6c7d8'
export const MAILBOX_ID = filled(16, 0xab)
/** What a pairing slot holds: iv 12, ciphertext, tag 16; in examples one character stands for each byte. */
export const SLOT_BYTES = 'iv of 12 by. ciphertext of a JSON object, opaque to the server tag of 16 by.'
export const CONTINUATION = filled(48, 0x88)
export const REFRESH_TOKEN = filled(52, 0x5a)
export const JWK_X = filled(32, 0x99)
export const KID = filled(12, 0x99)
export const TIME_MS = 1_764_000_000_000

export const ASSERTION = {
  body: toBase64url(
    utf8(JSON.stringify({ purpose: 'token', aud: SERVER_KEY, user_id: USER_ID, signer: DEVICE_ID, iat: TIME_MS, jti: filled(16, 1) })),
  ),
  sig: SIGNATURE,
}

/** An entry of the device log as it is posted; its body is signed and opaque here. */
export const LOG_ENTRY = {
  body: toBase64url(utf8(JSON.stringify({ v: 1, user_id: USER_ID, log_seq: 3, type: 'rename_device', signer: DEVICE_ID }))),
  sig: SIGNATURE,
  boxes: { root: BOX, [DEVICE_ID]: BOX },
}
