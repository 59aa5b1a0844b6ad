/**
 * The address of a server: one rule for what a relay prints, what is configured, and what a device or an admin is given
 * (protocol.md §4). The URL parser of the platform reads the text (WHATWG), so all spellings of one address come to one.
 * Every refusal says its reason, and what to write instead. No message repeats the text: it may hold a password.
 */
import { type Bytes, fromBase64url } from './bytes.ts'
import { SealpostError } from './errors.ts'

/** Where the listener of admins is when nothing else is said. */
export const DEFAULT_ADMIN_URL = 'http://127.0.0.1:8788'

const CHARS_MAX = 2_048
/** RFC 1035 §2.3.4. */
const NAME_CHARS_MAX = 253
/** RFC 1123 §2.1, and `_`, which names of containers and of services have. */
const NAME_PART = /^[a-z\d_]([a-z\d_-]{0,61}[a-z\d_])?$/
const BLANK = /[\s\p{Cc}]/u
/** What ends a host in a URL, or begins one that is no name. */
const BESIDE_NAME = /[/?#@:[\]\\%]/

/**
 * `url` is the origin, without path and fragment. `pin`: the key of the server, 32 bytes, where the address has it after #.
 * Throws `invalid_request` with a hint.
 */
export function parseServerUrl(text: string): { url: string; pin: Bytes | null } {
  const url = readUrl(text)
  // the same host, and what certificates are made for
  if (url.hostname.endsWith('.')) url.hostname = url.hostname.slice(0, -1)
  checkHost(url)
  if (url.protocol === 'http:' && !isLoopback(url.hostname))
    throw wrong(
      'plain http is for this machine alone (127.0.0.1, [::1] or localhost)',
      'write https:// in front of the host; a relay on another machine has a TLS proxy before it',
    )
  return { url: url.origin, pin: url.hash.length <= 1 ? null : parsePin(url.hash.slice(1)) }
}

/** The origin of web pages, as a browser sends it. Nobody connects there, so it may be any host. Throws `invalid_request` with a hint. */
export function parseWebOrigin(text: string): string {
  const url = readUrl(text)
  if (!isHost(url.hostname)) throw badName()
  if (url.hash !== '') throw wrong('an origin ends with its host or port', 'leave out what begins with #')
  return url.origin
}

/** The address of the socket: wss, or ws on loopback. */
export function socketUrl(server_url: string): string {
  return `${server_url.replace(/^http/, 'ws')}/api/socket`
}

/** Whether a name or an address leads to this machine alone, with brackets or without. */
export function isLoopback(host: string): boolean {
  const name = hostnameOf(host)
  return name !== null && /^(localhost\.?|127(\.\d{1,3}){3}|\[::1\]|\[::ffff:7f[\da-f]{2}:[\da-f]{1,4}\])$/.test(name)
}

/** Whether an address stands for all addresses of a machine: a place to listen at, and none to connect to. */
export function isUnspecified(host: string): boolean {
  return ['0.0.0.0', '[::]', '[::ffff:0:0]'].includes(hostnameOf(host) ?? '')
}

/** The URL by which this machine reaches what listens at a name or an address. */
export function localUrl(host: string, port: number): string {
  const name = hostnameOf(host) ?? bracketed(host)
  const reached = !isUnspecified(host) ? name : name === '[::]' ? '[::1]' : '127.0.0.1'
  return `http://${reached}:${port}`
}

/** A name of a host in its one spelling, in ASCII and lower case; null for what is no name, as an address is none. */
export function toHostName(text: string): string | null {
  if (BESIDE_NAME.test(text) || BLANK.test(text)) return null
  const name = hostnameOf(text)
  return name === null || !isHost(name) || isAddress(name) ? null : name
}

// ---------------------------------------------------------------- the rule

/** The form alone: a scheme, a host, and no more than a port and a fragment behind it. */
function readUrl(given: string): URL {
  const text = given.trim()
  if (text.length > CHARS_MAX) throw wrong(`the address has more than ${CHARS_MAX} characters`, AS_HTTPS)
  if (BLANK.test(text)) throw wrong('the address has a blank, a line end or a control character in it', AS_HTTPS)
  const [before, rest] = splitScheme(text)
  if (rest === null) throw wrong('the address has no https:// in front', `${AS_HTTPS}; on this machine http://127.0.0.1:8787`)
  if (!/^https?$/i.test(before)) throw wrong('the address of a server begins with https:// or http:// and nothing else', AS_HTTPS)
  if (!URL.canParse(text)) throw unreadable(hostPart(rest))
  const url = new URL(text)
  if (url.username !== '' || url.password !== '')
    throw wrong('the address has a user or a password in it', `leave out what is before @; ${AS_HTTPS}`)
  if (url.search !== '') throw wrong('the address has a query in it', `leave out what begins with ?; ${AS_HTTPS}`)
  if (url.pathname !== '/')
    throw wrong(
      'the address has a path, and a relay has a host and port of its own',
      `leave out what is behind the host and port; ${AS_HTTPS}`,
    )
  return url
}

function checkHost({ hostname, port }: URL): void {
  if (!isHost(hostname)) throw badName()
  if (isUnspecified(hostname))
    throw wrong(
      '0.0.0.0 and [::] are places to listen at, not addresses to connect to',
      'on the machine of the relay write 127.0.0.1 or [::1], elsewhere https:// and its name',
    )
  // fe80::/10; without its zone it leads nowhere, and with it to another place on each machine
  if (/^\[fe[89ab]/.test(hostname)) throw wrong(...ONE_LINK)
  if (port === '0') throw wrong('port 0 is for listening alone', 'write the port that sealpost serve shows')
}

function parsePin(text: string): Bytes {
  try {
    return fromBase64url(text, 32)
  } catch (cause) {
    const hint = 'copy the whole address that sealpost serve shows, or leave out what begins with #'
    throw new SealpostError('invalid_request', 'the part after # is not a server key (43 characters)', { cause, hint })
  }
}

// ---------------------------------------------------------------- reasons

const AS_HTTPS = 'write it as https://relay.example or https://relay.example:8443'
const ONE_LINK = [
  'the address is of one network link, and means another machine on each',
  'write the name of the relay, or an address that holds everywhere',
] as const

/** Why the URL parser took no part of it. */
function unreadable(host: string): SealpostError {
  if (host.includes('%') && host.includes(':')) return wrong(...ONE_LINK)
  if (!host.startsWith('[') && hostnameOf(host)?.startsWith('[') === true)
    return wrong('an IPv6 address is in brackets in a URL', 'write it as http://[::1]:8787 or https://[2001:db8::1]')
  return wrong('the address has no valid host, or a port above 65535', AS_HTTPS)
}

function badName(): SealpostError {
  return wrong('the host is not a valid name: letters, digits, - and _, in parts of 1 to 63, with dots between', AS_HTTPS)
}

function wrong(reason: string, hint: string): SealpostError {
  return new SealpostError('invalid_request', reason, { hint })
}

// ---------------------------------------------------------------- hosts

/** As the URL parser spells it; null when it takes it for no host. */
function hostnameOf(host: string): string | null {
  const text = `http://${bracketed(host)}`
  return URL.canParse(text) ? new URL(text).hostname : null
}

function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
}

function isHost(hostname: string): boolean {
  return (
    hostname.startsWith('[') ||
    (hostname.length <= NAME_CHARS_MAX &&
      hostname
        .replace(/\.$/, '')
        .split('.')
        .every((part) => NAME_PART.test(part)))
  )
}

/** The URL parser takes every host that ends with a number for an address. */
function isAddress(hostname: string): boolean {
  return hostname.startsWith('[') || /(^|\.)\d+\.?$/.test(hostname)
}

function splitScheme(text: string): [before: string, rest: string | null] {
  const at = text.indexOf('://')
  return at === -1 ? [text, null] : [text.slice(0, at), text.slice(at + 3)]
}

function hostPart(rest: string): string {
  return rest.split(/[/?#\\]/, 1)[0] ?? ''
}
