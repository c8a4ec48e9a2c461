// lib/jit/targets/webgpu/names.ts: names of a kernel's description -> names that WGSL lets stand.
// Source: WGSL, chapters 16.1 and 16.2 (keywords, reserved words) and 17 (functions, which a name would hide).

const keywords =
  'alias break case const const_assert continue continuing default diagnostic discard else enable false fn for if let ' +
  'loop override requires return struct switch true var while';

const reserved =
  'NULL Self abstract active alignas alignof as asm asm_fragment async attribute auto await become cast catch class ' +
  'co_await co_return co_yield coherent column_major common compile compile_fragment concept const_cast consteval ' +
  'constexpr constinit crate debugger decltype delete demote demote_to_helper do dynamic_cast enum explicit export ' +
  'extends extern external fallthrough filter final finally friend from fxgroup get goto groupshared highp impl ' +
  'implements import inline instanceof interface layout lowp macro macro_rules match mediump meta mod module move mut ' +
  'mutable namespace new nil noexcept noinline nointerpolation non_coherent noncoherent noperspective null nullptr of ' +
  'operator package packoffset partition pass patch pixelfragment precise precision premerge priv protected pub public ' +
  'readonly ref regardless register reinterpret_cast require resource restrict self set shared sizeof smooth snorm ' +
  'static static_assert static_cast std subroutine super target template this thread_local throw trait try type typedef ' +
  'typeid typename typeof union unless unorm unsafe unsized use using varying virtual volatile wgsl where with ' +
  'writeonly yield';

const functions =
  'bitcast all any select arrayLength abs acos acosh asin asinh atan atanh atan2 ceil clamp cos cosh ' +
  'countLeadingZeros countOneBits countTrailingZeros cross degrees determinant distance dot dot4U8Packed dot4I8Packed ' +
  'exp exp2 extractBits faceForward firstLeadingBit firstTrailingBit floor fma fract frexp insertBits inverseSqrt ldexp ' +
  'length log log2 max min mix modf normalize pow quantizeToF16 radians reflect refract reverseBits round saturate sign ' +
  'sin sinh smoothstep sqrt step tan tanh transpose trunc atomicLoad atomicStore atomicAdd pack2x16float ' +
  'unpack2x16float workgroupBarrier storageBarrier workgroupUniformLoad main array vec2 vec4 f32 f16 i32 u32 bool ' +
  'workgroup workgroups localIndex subgroupSize subgroupLane subgroupIndex parameters infinityBits';

const taken: ReadonlySet<string> = new Set(
  [keywords, reserved, functions].flatMap((words) => words.split(' ')),
);

/** The name itself, or with a line below where WGSL has its own use for it. */
export function wgslName(name: string): string {
  return taken.has(name) ? `${name}_` : name;
}
