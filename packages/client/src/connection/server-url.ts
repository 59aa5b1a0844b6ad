/** Addresses of a server: `https://host[:port]`, `http` on loopback only, optionally with the pinned key as the fragment. */
import { type Bytes, fromBase64url, SealpostError, toBase64url } from '@sealpost/protocol'

/** `url` without path and fragment; `pin` 32 bytes, or null. Throws `invalid_request`. */
export function parseServerUrl(text: string): { url: string; pin: Bytes | null } {
  const [address = '', fragment] = text.trim().split('#', 2)
  const match = /^(https?):\/\/(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?\/?$/i.exec(address)
  if (match === null)
    throw wrong('the server is given as https://host (http on this machine alone), or https://host/#key with the key of the server')
  const [, scheme = '', host = '', port = ''] = match
  if (scheme.toLowerCase() === 'http' && !isLoopback(host))
    throw wrong('plain http is for this machine alone (127.0.0.1, localhost); use https')
  return { url: `${scheme}://${host}${port}`.toLowerCase(), pin: fragment === undefined || fragment === '' ? null : parsePin(fragment) }
}

/** The address of the socket: wss, or ws on loopback. */
export function socketUrl(server_url: string): string {
  return `${server_url.replace(/^http/, 'ws')}/api/socket`
}

/** The end of a server's key, for sentences. */
export function keyTail(key: Bytes): string {
  return `…${toBase64url(key).slice(-4)}`
}

function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i.test(host)
}

function parsePin(text: string): Bytes {
  try {
    return fromBase64url(text, 32)
  } catch (cause) {
    throw new SealpostError('invalid_request', 'the part after # is not a server key (43 characters)', { cause })
  }
}

function wrong(sentence: string): SealpostError {
  return new SealpostError('invalid_request', sentence)
}
