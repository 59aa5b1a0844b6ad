/**
 * HPKE base mode (RFC 9180) with X-Wing (0x647a), HKDF-SHA256, AES-256-GCM: what carries an epoch key to a device
 * (protocol.md §1, §2). A private key is the 32-byte X-Wing seed. The KEM is noble's on every platform, so that the same
 * code runs in browsers and on Node; both libraries are loaded at the first use, because only pairing and writing or
 * opening log entries need them.
 */
import type { CipherSuite, KEM, Key } from 'hpke'
import { type Bytes, concat, EMPTY } from './bytes.ts'
import { SealpostError } from './errors.ts'

export const KEM_PUB_BYTES = 1216
const ENC_BYTES = 1120
const TAG_BYTES = 16

/** The X-Wing public key (1,216 bytes) of a 32-byte seed. */
export async function kemPublic(seed: Bytes): Promise<Bytes> {
  if (seed.length !== 32) throw new SealpostError('invalid_encoding', 'a private key has 32 bytes')
  const { xwing } = await loadSuite()
  return xwing.keygen(seed).publicKey
}

/** Returns `enc (1120) || ciphertext || tag (16)`; throws `invalid_encoding` for a key that cannot be sealed to. */
export async function hpkeSeal(kem_pub: Bytes, info: Bytes, plaintext: Bytes): Promise<Bytes> {
  const { suite } = await loadSuite()
  try {
    const sealed = await suite.Seal(await suite.DeserializePublicKey(kem_pub), plaintext, { info, aad: EMPTY })
    return concat(sealed.encapsulatedSecret, sealed.ciphertext)
  } catch (cause) {
    throw new SealpostError('invalid_encoding', 'the public key of a recipient is not valid', { cause })
  }
}

/** Throws `invalid_box` whenever the box does not open, whatever the reason. */
export async function hpkeOpen(kem_seed: Bytes, info: Bytes, box: Bytes): Promise<Bytes> {
  if (box.length < ENC_BYTES + TAG_BYTES) throw new SealpostError('invalid_box', 'the box is too short')
  const { suite } = await loadSuite()
  try {
    const key = await suite.DeserializePrivateKey(kem_seed)
    return await suite.Open(key, box.subarray(0, ENC_BYTES), box.subarray(ENC_BYTES), { info, aad: EMPTY })
  } catch (cause) {
    throw new SealpostError('invalid_box', 'the box does not open', { cause })
  }
}

type XWing = typeof import('@noble/post-quantum/hybrid.js')['ml_kem768_x25519']
type RawKey = Key & { readonly raw: Bytes }
type Loaded = { xwing: XWing; suite: CipherSuite<RawKey> }

let loaded: Promise<Loaded> | undefined

function loadSuite(): Promise<Loaded> {
  loaded ??= load().catch((error: unknown) => {
    // a module that could not be fetched may be there the next time
    loaded = undefined
    throw error
  })
  return loaded
}

async function load(): Promise<Loaded> {
  const [hpke, { ml_kem768_x25519: xwing }] = await Promise.all([import('hpke'), import('@noble/post-quantum/hybrid.js')])
  const kem = createKem(xwing)
  return { xwing, suite: new hpke.CipherSuite(() => kem, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES_256_GCM) }
}

/** noble's X-Wing as a KEM of `hpke`. Keys are made from seeds by noble alone, so the adapter has no part in that. */
function createKem(xwing: XWing): KEM<RawKey> {
  const key = (type: 'private' | 'public', raw: Bytes): RawKey => ({ algorithm: { name: 'X-Wing' }, extractable: true, type, raw })
  const refuse = async (): Promise<never> => {
    throw new SealpostError('internal', 'keys are made from seeds')
  }
  return {
    id: 0x647a,
    type: 'KEM',
    name: 'X-Wing',
    Nsecret: 32,
    Nenc: ENC_BYTES,
    Npk: KEM_PUB_BYTES,
    Nsk: 32,
    DeriveKeyPair: refuse,
    GenerateKeyPair: refuse,
    SerializePublicKey: refuse,
    SerializePrivateKey: refuse,
    DeserializePublicKey: async (raw) => key('public', raw),
    DeserializePrivateKey: async (raw) => key('private', raw),
    Encap: async ({ raw }) => {
      const { sharedSecret, cipherText } = xwing.encapsulate(raw)
      return { shared_secret: sharedSecret, enc: cipherText }
    },
    Decap: async (enc, { raw }) => xwing.decapsulate(enc, raw),
  }
}
