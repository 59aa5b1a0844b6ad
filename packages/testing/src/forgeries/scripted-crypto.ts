/** The node:crypto port with its random bytes given beforehand, so that a test can meet a recorded transcript byte for byte. */
import type { Bytes } from '../../../protocol/src/bytes.ts'
import { nodeCrypto, type SyncCrypto } from '../../../protocol/src/node.ts'

export function scriptedCrypto(...randoms: readonly Bytes[]): SyncCrypto {
  const rest = randoms.map((bytes) => Uint8Array.from(bytes))
  return {
    ...nodeCrypto,
    random: (length) => {
      const next = rest.shift()
      if (next?.length !== length) throw new Error(`the script has no ${length} random bytes here`)
      return next
    },
  }
}
