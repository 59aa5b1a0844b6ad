/** Certificates for tests: X.509 in DER, signed by their own key, for 127.0.0.1 and a name. */
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'

export type Certificate = { key: string; cert: string }

export function makeCertificate(not_before: Date, not_after: Date, host = 'localhost'): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ecdsaWithSha256 = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex'))
  const name = der(0x30, der(0x31, der(0x30, Buffer.from('0603550403', 'hex'), der(0x0c, Buffer.from(host)))))
  const names = der(0x30, der(0x87, Buffer.from([127, 0, 0, 1])), der(0x82, Buffer.from(host)))
  const altName = der(0x30, Buffer.from('0603551d11', 'hex'), der(0x04, names))
  const version = der(0xa0, Buffer.from([0x02, 0x01, 0x02]))
  const serial = der(0x02, Buffer.from([1]), randomBytes(8))
  const validity = der(0x30, time(not_before), time(not_after))
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const tbs = der(0x30, version, serial, ecdsaWithSha256, name, validity, name, spki, der(0xa3, der(0x30, altName)))
  const signature = der(0x03, Buffer.from([0]), sign('sha256', tbs, privateKey))
  const cert = der(0x30, tbs, ecdsaWithSha256, signature).toString('base64')
  return {
    key: String(privateKey.export({ type: 'pkcs8', format: 'pem' })),
    cert: `-----BEGIN CERTIFICATE-----\n${cert}\n-----END CERTIFICATE-----\n`,
  }
}

function der(tag: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const long = body.length > 255 ? [0x82, body.length >> 8, body.length & 255] : [0x81, body.length]
  return Buffer.concat([Buffer.from([tag, ...(body.length > 127 ? long : [body.length])]), body])
}

function time(at: Date): Buffer {
  return der(0x18, Buffer.from(`${at.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`))
}
