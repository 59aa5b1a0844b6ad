import { readFileSync } from 'node:fs'
import { fromBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { fixedKeys } from '@sealpost/testing/relays/fixed-keys'
import { createTokens } from './tokens.ts'

const vectors: {
  now_ms: number
  claims: { sub: string; device_id: string; cnf: { jkt: string }; exp: number }
  valid: string
  invalid: { name: string; token: string }[]
} = JSON.parse(readFileSync(new URL('../../../../../vectors/tokens.json', import.meta.url), 'utf8'))
const fill = (byte: number) => new Uint8Array(32).fill(byte)
const tokens = createTokens(fixedKeys([fill(9)]), nodeCrypto.ed25519Public(fill(3)), () => vectors.now_ms)

describe('vectors/tokens.json', () => {
  it('the token of the second implementation is in force', async () => {
    const { sub, device_id, cnf, exp } = vectors.claims
    expect(fromBase64url(sub, 32)).toHaveLength(32)
    expect(await tokens.verify(vectors.valid)).toEqual({
      user_id: sub,
      device_id,
      scope: 'device',
      jkt: cnf.jkt,
      token_version: 0,
      expires_at: exp * 1_000,
    })
  })

  it.each(vectors.invalid)('is refused: $name', async ({ token }) => {
    expect(await tokens.verify(token)).toBeNull()
  })
})
