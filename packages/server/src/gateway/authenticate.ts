/**
 * Who is at the other end (protocol.md §4). A failure takes the same steps as a success: an unknown device costs a look-up and
 * a verification too, against a key that nobody holds.
 */
import {
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
import type { SessionStore } from '../ports.ts'

export type Authenticator = {
  /** Throws what the store throws. */
  authenticate(head: ClientHeadOf<'client_auth'>, keys: SessionKeys): Promise<Extract<Input, { is: 'authenticated' }>>
  checkRekey(head: ClientHeadOf<'client_auth'>, keys: SessionKeys, who: Who, session_id: string): Promise<boolean>
}

export function createAuthenticator(crypto: SyncCrypto, store: Pick<SessionStore, 'findDevice'>): Authenticator {
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
