/** Looks at what others reach: asks as anybody could, sends nothing that is secret, and trusts no answer. Every question ends in time. */
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { connect, isIP } from 'node:net'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { fromBase64url, type Bytes, isLoopback, isUnspecified } from '@sealpost/protocol'
import { WebSocket } from 'ws'
import { z } from 'zod'
import type { Config } from '../config/config.ts'
import { SOCKET_PATH, SUBPROTOCOL } from '../gateway/upgrade.ts'
import { reachedUrl } from '../http/listening.ts'
import type { AdminPort, Port, PublicUrl, Tls } from './facts.ts'

const ANSWER_MS = 4_000
const BODY_BYTES_MAX = 65_536
const ADDRESSES_MAX = 16
const SERVER = z.object({ server_key: z.string().transform((text) => fromBase64url(text, 32)) })

export type Trust = {
  /** PEM, in place of the certificates that Node knows. */
  ca?: string | undefined
}

export async function lookAtPort({ host, port }: Pick<Config, 'host' | 'port'>): Promise<Port> {
  const url = reachedUrl(host, port)
  const at = url.replace('http://', '')
  const to = { host: isUnspecified(host) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : host, port }
  try {
    if (isIP(host) !== 0 && !isUnspecified(host) && !isLoopback(host) && !isOwnAddress(host)) return { at, is: 'no_address' }
    const ready = get(to, '/readyz').then(
      ({ status }) => status === 200,
      () => false,
    )
    const server = await get(to, '/.well-known/sealpost.json')
    const server_key = serverKeyIn(server)
    if (server_key === null) return { at, is: 'other', reason: `it answers ${server.status}, and is no relay` }
    return { at, is: 'relay', ready: await ready, server_key }
  } catch (error) {
    const reason = reasonOf(error)
    if (reason === 'ECONNREFUSED') return { at, is: 'silent' }
    return reason === 'ENOTFOUND' || reason === 'EAI_AGAIN' ? { at, is: 'no_address' } : { at, is: 'other', reason }
  }
}

/** Where else than on loopback the port answers. */
export async function lookAtAdminPort({ host, port }: { host: string; port: number }): Promise<AdminPort> {
  const others = ownAddresses()
    .filter((address) => !isLoopback(address))
    .slice(0, ADDRESSES_MAX)
  const answers = await Promise.all(others.map((address) => isOpen(address, port)))
  return { host, port, reached: others.filter((_, i) => answers[i]) }
}

/** `origin`: as SEALPOST_PUBLIC_URL has it. */
export async function lookAtPublicUrl(origin: string, trust: Trust): Promise<PublicUrl> {
  const url = new URL(origin)
  const [tls, answer, socket_failed] = await Promise.all([
    url.protocol === 'https:' ? lookAtTls(url, trust).catch((error: unknown) => ({ failed: reasonOf(error) })) : null,
    get(url, '/.well-known/sealpost.json').then(
      (got) => ({ status: got.status, server_key: serverKeyIn(got) }),
      (error: unknown) => ({ failed: reasonOf(error) }),
    ),
    openSocket(origin),
  ])
  return { url: origin, tls, answer, socket_failed }
}

// ---------------------------------------------------------------- HTTP

type Got = { status: number; text: string }

/** A URL has no place for the zone of an address. The certificate is another check's. */
function get(to: URL | { host: string; port: number }, path: string): Promise<Got> {
  return new Promise((resolve, reject) => {
    const options = { agent: false, rejectUnauthorized: false, signal: AbortSignal.timeout(ANSWER_MS) }
    const take = (response: IncomingMessage): void => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
        if (text.length > BODY_BYTES_MAX) response.destroy(new Error('too much'))
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      response.on('error', reject)
    }
    const request =
      to instanceof URL
        ? (to.protocol === 'https:' ? requestHttps : requestHttp)(new URL(path, to), options, take)
        : requestHttp({ ...options, ...to, path }, take)
    request.on('error', reject)
    request.end()
  })
}

function serverKeyIn({ status, text }: Got): Bytes | null {
  if (status !== 200) return null
  try {
    return SERVER.parse(JSON.parse(text)).server_key
  } catch {
    return null
  }
}

/** Null when it opened. */
function openSocket(origin: string): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${origin.replace(/^http/, 'ws')}${SOCKET_PATH}`, [SUBPROTOCOL], {
      rejectUnauthorized: false,
      handshakeTimeout: ANSWER_MS,
      perMessageDeflate: false,
    })
    const end = (failure: string | null): void => {
      resolve(failure)
      socket.terminate()
    }
    socket.on('open', () => end(null))
    socket.on('unexpected-response', (request, response) => {
      end(`status ${response.statusCode}`)
      request.destroy()
    })
    // also what is said of a socket that is terminated before it opened
    socket.on('error', (error) => end(reasonOf(error)))
  })
}

// ---------------------------------------------------------------- TLS

async function lookAtTls(url: URL, { ca }: Trust): Promise<Tls> {
  const [now, old_version] = await Promise.all([
    greet(url, { ca }, (socket) => ({
      version: socket.getProtocol() ?? 'unknown',
      refused: socket.authorized ? null : codeOf(socket.authorizationError),
      valid_to_ms: Date.parse(socket.getPeerCertificate().valid_to),
    })),
    greet(url, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' }, (socket) => socket.getProtocol()).catch(
      () => null,
    ),
  ])
  return { ...now, old_version }
}

/** Looks at a connection as soon as it is encrypted, and ends it. The certificate is judged, not obeyed. */
function greet<T>({ hostname, port }: URL, options: object, look: (socket: TLSSocket) => T): Promise<T> {
  const host = hostname.replace(/^\[|\]$/g, '')
  return new Promise((resolve, reject) => {
    const name = isIP(host) === 0 ? { servername: host } : {}
    const socket = connectTls({ ...options, ...name, host, port: Number(port || 443), rejectUnauthorized: false }, () => {
      resolve(look(socket))
      socket.destroy()
    })
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer in time')))
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('it hung up')))
  })
}

// ---------------------------------------------------------------- addresses

function ownInterfaces(): NetworkInterfaceInfo[] {
  return Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
}

/** Those of a link alone have no meaning without it. */
function ownAddresses(): string[] {
  return ownInterfaces().flatMap(({ address, scopeid }) => (scopeid ? [] : [address]))
}

/** Of an address as it was configured, perhaps with a zone. */
function isOwnAddress(host: string): boolean {
  return ownInterfaces().some(({ address }) => address === host.split('%', 1)[0])
}

function isOpen(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: ANSWER_MS })
    const end = (open: boolean): void => {
      resolve(open)
      socket.destroy()
    }
    socket.on('connect', () => end(true))
    socket.on('timeout', () => end(false))
    socket.on('error', () => end(false))
  })
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')) return 'no answer in time'
  return codeOf(error)
}

/** The code, else the sentence. */
function codeOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown }
  return typeof code === 'string' ? code : typeof message === 'string' && message !== '' ? message : String(error)
}
