/** The bounds of the gateway, each from the protocol's list and each configurable; units in the names. */
import { LIMITS } from '@sealpost/protocol'
import type { Rules } from '../core/state.ts'

export type GatewayLimits = Rules & {
  handshakeFrameBytesMax: number
  fragmentsMax: number
  inboundMessagesMax: number
  outboundHighBytes: number
  outboundLowBytes: number
  stalledMs: number
  /** From the first byte of a message to its last. */
  messageMs: number
  queueBytesMax: number
  socketsPerAddressMax: number
  unauthenticatedPerAddressMax: number
  eventsPerDevicePerSecond: number
  bytesPerDevicePerSecond: number
  burstSeconds: number
  eventsPerUserPerMinute: number
  pingMs: number
  pongMs: number
  headRoundMs: number
  logEntriesPageMax: number
  continuationMs: number
  /** One commit. */
  commitEventsMax: number
  commitBytesMax: number
  /** How long a peer may take to answer a close. */
  closeMs: number
  /** How long what is in flight at a drain may take. */
  drainMs: number
  /** Reconnecting clients are spread over this time. */
  drainSpreadMs: number
  /** Grain of all timers. */
  tickMs: number
  /** Between two writes of what was seen of devices. */
  touchMs: number
}

const REQUESTS_MAX = 32

export const GATEWAY_LIMITS: GatewayLimits = {
  ...LIMITS,
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
  messageMs: 30_000,
  commitEventsMax: 4_096,
  commitBytesMax: 8 * 1_048_576,
  closeMs: 2_000,
  drainMs: 5_000,
  drainSpreadMs: 5_000,
  tickMs: 250,
  touchMs: 30_000,
}
