/** Keys of access tokens that are given and not derived, for tests: the first signs, all of them verify. */
import { type Bytes, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { importKey, type KeySet, kidOf, publicJwk, publishedJwk } from '../../../server/src/http/auth/signing-keys.ts'

export function fixedKeys(seeds: readonly Bytes[]): KeySet {
  const keys = seeds.map((seed) => ({ seed, public_key: nodeCrypto.ed25519Public(seed) }))
  const [active] = keys
  if (active === undefined) throw new TypeError('there is no key to sign with')
  return {
    signing: async () => ({
      kid: kidOf(active.public_key),
      key: await importKey({ ...publicJwk(active.public_key), d: toBase64url(active.seed) }),
    }),
    verifying: async (kid) => {
      const found = keys.find((key) => kidOf(key.public_key) === kid)
      return found === undefined ? null : importKey(publicJwk(found.public_key))
    },
    jwks: async () => ({ keys: keys.map(({ public_key }) => publishedJwk(public_key)) }),
  }
}
