// Written by `python -m tests.api.page_types` from the API's description.

export interface BackgroundAnswer {
  events: number;
  livetime: number;
  lowest_far_per_year: number | null;
  slides: SlideAnswer[];
  total: number;
  vetoes: string[];
  model: string;
}

export interface BackgroundStatus {
  blocks: number;
  slides: number;
  events: number;
  livetime: number;
  vetoed: number;
  planned: number | null;
}

export interface BlockAnswer {
  number: number;
  start_ns: number;
  strides: number;
  slides: number;
  events: number;
  livetime: number;
}

export interface Candidate {
  time_ns: number;
  time: number;
  statistic: number;
  stream: string;
  id: string;
  far_per_year: number | null;
  ifar_years: number | null;
  false_alarm_probability: number | null;
  saturated: boolean;
  odds?: Odds | null;
}

export interface CandidateDetail {
  time_ns: number;
  time: number;
  statistic: number;
  stream: string;
  id: string;
  far_per_year: number | null;
  ifar_years: number | null;
  false_alarm_probability: number | null;
  saturated: boolean;
  odds?: Odds | null;
  rank: number;
  vetoed: boolean;
  count: number | null;
  background_livetime: number;
  observing_time: number;
  significance: number | null;
  neighbours: EventAnswer[];
  nearby: number;
  invalid: IntervalAnswer[];
  absent: IntervalAnswer[];
  vetoes_nearby: NearbyVeto[];
  strain: boolean;
  vetoes: string[];
  model: string;
}

export interface Candidates {
  candidates: Candidate[];
  total: number;
  vetoed: number;
  livetime: number;
  background_livetime: number;
  vetoes: string[];
  model: string;
}

export interface ComparedRun {
  id: string;
  name: string;
  model: string;
  geometry_digest: string;
  data: string;
  zero_lag_livetime: number;
  background_livetime: number;
  lowest_far_per_year: number | null;
  loudest: number | null;
  loudest_far_per_year: number | null;
  threshold: number | null;
  reached: boolean;
  injections: number;
  found: number | null;
  efficiency: EfficiencyBinAnswer[];
  vetoes: string[];
}

export interface Comparison {
  far_per_year: number;
  same_model: boolean;
  same_geometry: boolean;
  runs: ComparedRun[];
}

export interface DriftAnswer {
  start: number | null;
  stop: number | null;
  livetime: number;
  events: number;
  points: DriftPointAnswer[];
  p_value: number;
  background_livetime: number;
  vetoes: string[];
  model: string;
}

export interface DriftPointAnswer {
  statistic: number;
  expected: number;
  observed: number;
  p_value: number;
}

export interface EfficiencyAnswer {
  by: string;
  unit: string;
  far_per_year: number;
  threshold: number | null;
  background_livetime: number;
  bins: EfficiencyBinAnswer[];
  vetoes: string[];
  model: string;
}

export interface EfficiencyBinAnswer {
  low_edge: number;
  high_edge: number | null;
  injections: number;
  found: number;
  not_analysed: number;
  efficiency: number | null;
  low: number;
  high: number;
}

export interface EventAnswer {
  time_ns: number;
  time: number;
  statistic: number;
  stream: string;
}

export interface Events {
  events: EventAnswer[];
  total: number;
}

export interface FarAnswer {
  statistic: number;
  far_per_year: number;
  ifar_years: number;
  count: number;
  uncertain: number;
  floor: number | null;
  livetime: number;
  saturated: boolean;
  observing_time: number;
  false_alarm_probability: number;
  significance: number | null;
  vetoes: string[];
  model: string;
}

export interface GeometryBody {
  ifos: string[];
  sample_rate: number;
  kernel_length: number;
  inference_sampling_rate: number;
  frame_size: number;
  psd_length: number;
  psd_min_length: number;
  psd_refresh_length: number;
  fftlength: number;
  fduration: number;
  highpass: number;
}

export interface Health {
  status: string;
  version: string;
}

export interface IfarAnswer {
  points: IfarPointAnswer[];
  livetime: number;
  events: number;
  floor: number | null;
  vetoes: string[];
  model: string;
}

export interface IfarPointAnswer {
  statistic: number;
  ifar_years: number;
  ifar_years_low: number;
  ifar_years_high: number | null;
  count: number;
  saturated: boolean;
}

export interface InjectionsAnswer {
  far_per_year: number;
  threshold: number | null;
  background_livetime: number;
  window: number;
  total: number;
  pending: number;
  vetoed: number;
  found: Recovered[];
  missed: Recovered[];
  efficiency: EfficiencyBinAnswer[];
  parameters: string[];
  drawn_in_volume: boolean;
  vetoes: string[];
  model: string;
}

export interface IntervalAnswer {
  start: number;
  stop: number;
}

export interface LatencyMs {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

export interface NearbyVeto {
  name: string;
  segments: IntervalAnswer[];
}

export interface Odds {
  p_astro: number;
  signals: number;
  noise: number;
  limited: boolean;
}

export interface PerKind {
  streams: number;
  streams_done: number;
  chunks: number;
  events: number;
  livetime: number;
  vetoed: number;
  analysed: number;
  gaps: number;
  planned: number;
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  instance: string;
  errors?: string[];
}

export interface QTransform {
  time_ns: number;
  ifo: string;
  start: number;
  step: number;
  frequencies: number[];
  energy: number[][];
}

export interface Readiness {
  database: string;
  triton: string;
}

export interface Recovered {
  time_ns: number;
  time: number;
  set: string;
  snr: number;
  parameters: Record<string, number>;
  event: EventAnswer | null;
  reason: string;
}

export interface RunStatus {
  name: string;
  model: string;
  geometry: GeometryBody;
  simulated: boolean;
  data: string;
  planned_background?: number | null;
  background_run?: string | null;
  id: string;
  geometry_digest: string;
  state: "running" | "complete" | "failed";
  message: string | null;
  throughput: number | null;
  latency_ms: LatencyMs | null;
  revision: number;
  created: string;
  updated: string;
  zero_lag: PerKind;
  background: BackgroundStatus;
  injections: PerKind;
  lag: number | null;
  arrived: string | null;
  start: number | null;
  stop: number | null;
}

export interface RunSummary {
  name: string;
  model: string;
  geometry: GeometryBody;
  simulated: boolean;
  data: string;
  planned_background?: number | null;
  background_run?: string | null;
  id: string;
  geometry_digest: string;
  state: "running" | "complete" | "failed";
  message: string | null;
  throughput: number | null;
  latency_ms: LatencyMs | null;
  revision: number;
  created: string;
  updated: string;
}

export interface Runs {
  runs: RunSummary[];
  total: number;
}

export interface ScoresAnswer {
  start: number;
  stop: number;
  bucket: number;
  time: number[];
  minimum: (number | null)[];
  maximum: (number | null)[];
  invalid: IntervalAnswer[];
  received: IntervalAnswer[];
}

export interface SlideAnswer {
  shifts: Record<string, number>;
  blocks: number;
  events: number;
  livetime: number;
  loudest: number | null;
}

export interface StreamAnswer {
  id: string;
  kind: "zero_lag" | "injections";
  shifts: Record<string, number>;
  segment: string;
  injection_set: string | null;
  chunks: number;
  next_number: number;
  done: boolean;
  events: number;
  livetime: number;
}

export interface VetoAnswer {
  name: string;
  ifos: string[];
  reason: string | null;
  segments: number;
  duration: number;
}

export interface VetoDetail {
  name: string;
  ifos: string[];
  reason: string | null;
  segments: number;
  duration: number;
  times_ns: number[][];
}

export interface VolumeAnswer {
  far_per_year: number;
  threshold: number | null;
  mass_1: number;
  mass_2: number;
  volume: number;
  volume_error: number;
  distance: number;
  distance_error: number | null;
  found: number;
  effective: number;
  covered: number;
}

export interface VolumesAnswer {
  volumes: VolumeAnswer[];
  injections: number;
  not_analysed: number;
  rejected: number;
  draws: number;
  max_redshift: number;
  background_livetime: number;
  vetoes: string[];
  model: string;
}

export interface Whitened {
  time_ns: number;
  start: number;
  sample_rate: number;
  strain: Record<string, number[]>;
}

export interface Paths {
  "/v1/runs/{run_id}": {
    parameters: {
      run_id: string;
    };
    answer: RunStatus;
  };
  "/v1/runs/{run_id}/vetoes/{veto}": {
    parameters: {
      run_id: string;
      veto: string;
    };
    answer: VetoDetail;
  };
  "/healthz": {
    parameters: Record<string, never>;
    answer: Health;
  };
  "/readyz": {
    parameters: Record<string, never>;
    answer: Readiness;
  };
  "/v1/runs": {
    parameters: {
      limit?: number | bigint;
      offset?: number | bigint;
    };
    answer: Runs;
  };
  "/v1/runs/{run_id}/streams": {
    parameters: {
      run_id: string;
    };
    answer: StreamAnswer[];
  };
  "/v1/compare": {
    parameters: {
      run: string[];
      far_per_year?: number;
    };
    answer: Comparison;
  };
  "/v1/runs/{run_id}/far": {
    parameters: {
      run_id: string;
      statistic: number;
      observing_time?: number;
      model?: string;
    };
    answer: FarAnswer;
  };
  "/v1/runs/{run_id}/ifar": {
    parameters: {
      run_id: string;
    };
    answer: IfarAnswer;
  };
  "/v1/runs/{run_id}/drift": {
    parameters: {
      run_id: string;
      last?: number;
    };
    answer: DriftAnswer;
  };
  "/v1/runs/{run_id}/background": {
    parameters: {
      run_id: string;
      limit?: number | bigint;
      offset?: number | bigint;
    };
    answer: BackgroundAnswer;
  };
  "/v1/runs/{run_id}/background/blocks": {
    parameters: {
      run_id: string;
    };
    answer: BlockAnswer[];
  };
  "/v1/runs/{run_id}/vetoes": {
    parameters: {
      run_id: string;
    };
    answer: VetoAnswer[];
  };
  "/v1/runs/{run_id}/candidates": {
    parameters: {
      run_id: string;
      limit?: number | bigint;
      offset?: number | bigint;
      merger_rate?: number;
      start_ns?: number | bigint;
      stop_ns?: number | bigint;
    };
    answer: Candidates;
  };
  "/v1/runs/{run_id}/candidates/{time_ns}": {
    parameters: {
      run_id: string;
      time_ns: number | bigint;
    };
    answer: CandidateDetail;
  };
  "/v1/runs/{run_id}/candidates/{time_ns}/whitened": {
    parameters: {
      run_id: string;
      time_ns: number | bigint;
    };
    answer: Whitened;
  };
  "/v1/runs/{run_id}/candidates/{time_ns}/q-transform/{ifo}": {
    parameters: {
      run_id: string;
      time_ns: number | bigint;
      ifo: string;
    };
    answer: QTransform;
  };
  "/v1/runs/{run_id}/injections": {
    parameters: {
      run_id: string;
      far_per_year: number;
      limit?: number | bigint;
      offset?: number | bigint;
      start_ns?: number | bigint;
      stop_ns?: number | bigint;
    };
    answer: InjectionsAnswer;
  };
  "/v1/runs/{run_id}/efficiency": {
    parameters: {
      run_id: string;
      far_per_year: number;
      by?: "snr" | "distance" | "redshift" | "mass_1" | "mass_2" | "chirp_mass" | "total_mass";
      bins?: number | bigint;
    };
    answer: EfficiencyAnswer;
  };
  "/v1/runs/{run_id}/volume": {
    parameters: {
      run_id: string;
      far_per_year: number[];
    };
    answer: VolumesAnswer;
  };
  "/v1/runs/{run_id}/events": {
    parameters: {
      run_id: string;
      kind: "zero_lag" | "background" | "injections";
      limit?: number | bigint;
      offset?: number | bigint;
    };
    answer: Events;
  };
  "/v1/runs/{run_id}/scores": {
    parameters: {
      run_id: string;
      stream?: string;
      kind?: "zero_lag" | "injections";
      start_ns?: number | bigint;
      stop_ns?: number | bigint;
      points?: number | bigint;
    };
    answer: ScoresAnswer;
  };
}
