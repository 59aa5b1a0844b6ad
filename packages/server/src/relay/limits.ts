/**
 * The bounds of what sessions share, from the protocol's list; `variables.ts` has those that an operator sets. Units in the names.
 */
import { LIMITS } from '@sealpost/protocol'
import type { Rules } from '../core/state.ts'

export type RelayLimits = Rules & {
  outboundHighBytes: number
  outboundLowBytes: number
  stalledMs: number
  queueBytesMax: number
  /** Sockets and followers together. */
  socketsPerAddressMax: number
  unauthenticatedPerAddressMax: number
  followersPerDeviceMax: number
  /** Between two comments of a stream that has nothing to say. */
  heartbeatMs: number
  eventsPerDevicePerSecond: number
  bytesPerDevicePerSecond: number
  burstSeconds: number
  eventsPerUserPerMinute: number
  /** In the process, with as many at once. */
  handshakesPerSecond: number
  /** Pages that are read from the store at once, in the process. */
  pageReadsMax: number
  headRoundMs: number
  /** Between two comparisons of who is online. */
  presenceRoundMs: number
  logEntriesPageMax: number
  continuationMs: number
  /** One commit. */
  commitEventsMax: number
  commitBytesMax: number
  /** How long a peer may take to answer a close. */
  closeMs: number
  /** Sessions are told over this time that the relay goes away. */
  drainSpreadMs: number
  /** What is in flight when the last was told may take so long. */
  drainMs: number
  /** Each comes again within this time after it was told: those of one slice not together. */
  drainRetryMs: number
  /** Grain of all timers. */
  tickMs: number
  /** Between two writes of what was seen of devices. */
  touchMs: number
}

const REQUESTS_MAX = 32

export const RELAY_LIMITS: RelayLimits = {
  frame_bytes: LIMITS.frameBytesMax,
  payload_bytes: LIMITS.payloadBytesMax,
  batch_events: LIMITS.batchEventsMax,
  inflight_events: LIMITS.inflightEventsMax,
  inflight_bytes: LIMITS.inflightBytesMax,
  replay_events: LIMITS.replayEventsMax,
  replay_events_default: LIMITS.replayEventsDefault,
  replay_pages: LIMITS.replayPagesMax,
  requests: REQUESTS_MAX,
  handshake_step_ms: LIMITS.handshakeStepMs,
  rekey_deadline_ms: LIMITS.rekeyDeadlineMs,
  rekey_after_ms: LIMITS.rekeyAfterMs,
  rekey_after_frames: LIMITS.rekeyAfterFrames,
  // a client that counts a minute of its own is not too early because of the way its messages took
  rekey_rest_ms: 55_000,
  outboundHighBytes: LIMITS.outboundHighBytes,
  outboundLowBytes: LIMITS.outboundLowBytes,
  stalledMs: LIMITS.stalledMs,
  queueBytesMax: LIMITS.queueBytesMax,
  socketsPerAddressMax: LIMITS.socketsPerAddressMax,
  unauthenticatedPerAddressMax: LIMITS.unauthenticatedPerAddressMax,
  followersPerDeviceMax: 4,
  heartbeatMs: 20_000,
  eventsPerDevicePerSecond: LIMITS.eventsPerDevicePerSecond,
  bytesPerDevicePerSecond: LIMITS.bytesPerDevicePerSecond,
  burstSeconds: LIMITS.burstSeconds,
  eventsPerUserPerMinute: LIMITS.eventsPerUserPerMinute,
  handshakesPerSecond: 500,
  // half of the connections to the database
  pageReadsMax: 4,
  headRoundMs: LIMITS.headRoundMs,
  // also the longest of its rounds is within 5 s
  presenceRoundMs: 4_000,
  logEntriesPageMax: LIMITS.logEntriesPageMax,
  continuationMs: LIMITS.continuationMs,
  commitEventsMax: 4_096,
  commitBytesMax: 8 * 1_048_576,
  closeMs: 2_000,
  drainSpreadMs: 5_000,
  drainMs: 10_000,
  drainRetryMs: 500,
  tickMs: 250,
  touchMs: 30_000,
}
