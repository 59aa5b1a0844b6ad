/**
 * Who is at the other end (protocol.md §4). A failure takes the same steps as a success: an unknown device costs a look-up and
 * a verification too, against a key that nobody holds.
 */
import {
  answerClientHello,
  type Bytes,
  type ClientAuthBody,
  type ClientHeadOf,
  readClientAuth,
  readRekeyAuth,
  SealpostError,
  type SessionKeys,
  verifyClientAuth,
} from '@sealpost/protocol'
import type { SyncCrypto } from '@sealpost/protocol/node'
import type { Input, Who } from '../core/state.ts'
import type { SessionStore, Store } from '../ports/store.ts'
import type { Channel } from '../relay/sessions/session-run.ts'

export type Authenticator = Pick<Channel, 'answerHello'> & {
  /** Throws what the store throws. */
  authenticate(head: ClientHeadOf<'client_auth'>, keys: SessionKeys): Promise<Extract<Input, { is: 'authenticated' }>>
  checkRekey(head: ClientHeadOf<'client_auth'>, keys: SessionKeys, who: Who, session_id: string): Promise<boolean>
}

export function createAuthenticator(
  crypto: SyncCrypto,
  store: Pick<SessionStore, 'findDevice'> & Pick<Store, 'now'>,
  server: { sign_seed: Bytes; server_key: Bytes },
): Authenticator {
  const nobody = crypto.ed25519Public(crypto.random(32))

  async function verify(keys: SessionKeys, head: ClientHeadOf<'client_auth'>, key: Bytes): Promise<boolean> {
    try {
      return await verifyClientAuth(crypto, keys, head, key)
    } catch (error) {
      if (error instanceof SealpostError) return false
      throw error
    }
  }

  return {
    async answerHello(json, rekey) {
      try {
        const { hello, keys } = await answerClientHello(crypto, json, server, Math.floor(store.now()), rekey ?? undefined)
        return { is: 'hello_answered', hello, keys }
      } catch (error) {
        const unsupported = error instanceof SealpostError && error.code === 'unsupported_version'
        return { is: 'hello_refused', code: unsupported ? 'unsupported_version' : 'bad_frame' }
      }
    },
    async authenticate(head, keys) {
      let auth: ClientAuthBody | null = null
      try {
        auth = readClientAuth(head)
      } catch (error) {
        if (!(error instanceof SealpostError)) throw error
      }
      const device = auth === null ? null : await store.findDevice(auth.user_id, auth.device_id)
      const valid = await verify(keys, head, device?.sign_pub ?? nobody)
      return { is: 'authenticated', device, auth, valid: valid && device !== null }
    },
    async checkRekey(head, keys, who, session_id) {
      try {
        const body = readRekeyAuth(head)
        if (body.user_id !== who.user_id || body.device_id !== who.device_id || body.session_id !== session_id) return false
      } catch (error) {
        if (error instanceof SealpostError) return false
        throw error
      }
      return verify(keys, head, who.sign_pub)
    },
  }
}
