// Written by kernels/expand.ts from kernels/*.wgsl: change those, then run it. Length: all kernels are here.

/** Text of every kernel by stem, with the directives of kernels/README.md. */
export const SHADERS = {
  argmax: `
//#flags INTEGER=false
const THREADS:u32=64u;
alias Value = f32; //#alias IN
struct Params{
rows:u32,
pitch:u32,
n:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
out_offset:u32,
out_stride:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
@group(0)@binding(2)var<storage,read_write>out:array<u32>;
var<workgroup>best:array<u32,64>;
var<workgroup>place:array<u32,64>;
fn load_x(i:u32) ->Value{} //#load x IN
fn rank_of(v:Value) ->u32{
let bits=bitcast<u32>(v);
//#if INTEGER
return bits ^ 0x80000000u;
//#else
let magnitude=bits&0x7fffffffu;
if(magnitude>0x7f800000u){return 0xffffffffu;}
if(magnitude==bits||magnitude==0u){return magnitude|0x80000000u;}
return ~bits;
//#endif
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let xi=p.x_offset+row*p.x_row;
var at=select(0u,t,t<p.n);
var top=rank_of(load_x(xi+at*p.x_col));
for (var j=t+THREADS;j<p.n;j+=THREADS){
let v=rank_of(load_x(xi+j*p.x_col));
if(v>top){
top=v;
at=j;
}
}
best[t]=top;
place[t]=at;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){
let other=best[t+width];
if(other>best[t]||(other==best[t]&&place[t+width]<place[t])){
best[t]=other;
place[t]=place[t+width];
}
}
}
if(t==0u){out[p.out_offset+row*p.out_stride]=place[0];}
}
`,
  binary: `
//#flags OP=add
const RANK: u32 = 1u; //#constant
alias Value = f32; //#alias OUT
struct Params{
shape:array<vec4u,2>,
a_strides:array<vec4u,2>,
b_strides:array<vec4u,2>,
out_strides:array<vec4u,2>,
count:u32,
pitch:u32,
a_offset:u32,
b_offset:u32,
out_offset:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>a:array<f32>; //#storage A
@group(0)@binding(2)var<storage,read>b:array<f32>; //#storage B
@group(0)@binding(3)var<storage,read_write>out:array<f32>; //#storage OUT
fn load_a(i:u32) ->Value{} //#load a A
fn load_b(i:u32) ->Value{} //#load b B
fn f(l:Value,r:Value) ->Value{
//#if OP == add
return l+r;
//#elif OP == sub
return l - r;
//#elif OP == mul
return l*r;
//#elif OP == div
return l/r;
//#elif OP == maximum
return max(l,r);
//#elif OP == silu_mul
return l/(1.0+exp(-l))*r;
//#endif
}
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id:vec3u){
var rest=id.y*p.pitch+id.x;
if(rest>=p.count){return;}
var ai=p.a_offset;
var bi=p.b_offset;
var oi=p.out_offset;
//#unroll
for (var d=0u;d<RANK;d++){
let at=rest%p.shape[d/4u][d%4u];
rest/=p.shape[d/4u][d%4u];
ai+=at*p.a_strides[d/4u][d%4u];
bi+=at*p.b_strides[d/4u][d%4u];
oi+=at*p.out_strides[d/4u][d%4u];
}
out[oi]=f(load_a(ai),load_b(bi));
}
`,
  blocks: `
const THREADS:u32=64u;
const LOWEST:f32=-3.4028234e38;
struct Params{
rows:u32,
pitch:u32,
heads:u32,
q:u32,
k:u32,
weights_offset:u32,
block_q:u32,
block_k:u32,
lists_offset:u32,
list_b:u32,
list_h:u32,
list_q:u32,
entries_offset:u32,
bits_offset:u32,
bits_block:u32,
bits_q:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read_write>weights:array<f32>;
@group(0)@binding(2)var<storage,read>lists:array<u32>;
@group(0)@binding(3)var<storage,read>bits:array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let i=row%p.q;
let h=row/p.q%p.heads;
let b=row/p.q/p.heads;
let at=p.weights_offset+row*p.k;
let list=p.lists_offset+b*p.list_b+h*p.list_h+i/p.block_q*p.list_q;
let bits_row=p.bits_offset+i%p.block_q*p.bits_q;
var done=0u;
for (var e=lists[list];e<lists[list+1u];e++){
let first=lists[p.entries_offset+2u*e]*p.block_k;
let own=lists[p.entries_offset+2u*e+1u];
let end=min(first+p.block_k,p.k);
for (var j=done+t;j<first;j+=THREADS){weights[at+j]=LOWEST;}
if(own !=0xffffffffu){
for (var j=t;j<end - first;j+=THREADS){
let seen=(bits[bits_row+own*p.bits_block+j/8u]>>(j%8u))&1u;
if(seen==0u){weights[at+first+j]=LOWEST;}
}
}
done=end;
}
for (var j=done+t;j<p.k;j+=THREADS){weights[at+j]=LOWEST;}
}
`,
  eager: `
//#flags BLOCKS=true SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SINKS=true LSE=true
const THREADS:u32=64u;
const LOWEST:f32=-3.4028234e38;
struct Params{
rows:u32,
pitch:u32,
heads:u32,
q:u32,
k:u32,
weights_offset:u32,
lse_offset:u32,
padding_offset:u32,
padding_b:u32,
padding_k:u32,
mask_offset:u32,
mask_b:u32,
mask_h:u32,
mask_q:u32,
mask_k:u32,
sinks_offset:u32,
sinks_stride:u32,
query_offset:i32,
window_left:i32,
window_right:i32,
scaling:f32,
softcap:f32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read_write>weights:array<f32>;
//#if LSE
@group(0)@binding(2)var<storage,read_write>lse:array<u32>;
//#endif
//#if PADDING
@group(0)@binding(3)var<storage,read>padding:array<u32>;
//#endif
//#if MASK != none
@group(0)@binding(4)var<storage,read>mask:array<u32>;
//#endif
//#if SINKS
@group(0)@binding(5)var<storage,read>sinks:array<f32>;
//#endif
var<workgroup>part:array<f32,64>;
//#if SOFTCAP
fn tanh_of(v:f32) ->f32{
let a=min(abs(v),15.0);
let s=v*v;
let e=1.0 - 2.0/(exp(2.0*a)+1.0);
let series=v+v*s*(-0.33333333+s*(0.13333333+s*(-0.053968254+s*0.021869489)));
return select(select(-e,e,v>=0.0),series,a<0.25);
}
//#endif
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let i=row%p.q;
let h=row/p.q%p.heads;
let b=row/p.q/p.heads;
let at=p.weights_offset+row*p.k;
let position=i32(i)+p.query_offset;
var alive=true;
//#if ZERO_QUERIES
if(position>=0&&position<i32(p.k)){
alive=padding[p.padding_offset+b*p.padding_b+u32(position)*p.padding_k] !=0u;
}
//#endif
var m=LOWEST;
for (var j=t;j<p.k;j+=THREADS){
var s=weights[at+j]*p.scaling;
var seen=alive;
//#if BLOCKS
seen=seen&&weights[at+j]>LOWEST;
//#endif
//#if SOFTCAP
s=p.softcap*tanh_of(s/p.softcap);
//#endif
//#if CAUSAL
seen=seen&&i32(j)<=position;
//#endif
//#if LEFT
seen=seen&&i32(j)>=position - p.window_left;
//#endif
//#if RIGHT
seen=seen&&i32(j)<=position+p.window_right;
//#endif
//#if PADDING
seen=seen&&padding[p.padding_offset+b*p.padding_b+j*p.padding_k] !=0u;
//#endif
//#if MASK == bool
seen=seen&&mask[p.mask_offset+b*p.mask_b+h*p.mask_h+i*p.mask_q+j*p.mask_k] !=0u;
//#elif MASK == additive
let bias=mask[p.mask_offset+b*p.mask_b+h*p.mask_h+i*p.mask_q+j*p.mask_k];
seen=seen&&bias<0xfeffffffu;
s+=bitcast<f32>(select(0u,bias,seen));
//#endif
s=select(LOWEST,s,seen);
weights[at+j]=s;
m=max(m,s);
}
part[t]=m;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){part[t]=max(part[t],part[t+width]);}
}
workgroupBarrier();
m=part[0];
//#if SINKS
let sink=sinks[p.sinks_offset+h*p.sinks_stride];
m=max(m,sink);
//#endif
workgroupBarrier();
var sum=0.0;
for (var j=t;j<p.k;j+=THREADS){
let s=weights[at+j];
let w=select(exp(s - m),0.0,s<=LOWEST);
weights[at+j]=w;
sum+=w;
}
part[t]=sum;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){part[t]+=part[t+width];}
}
workgroupBarrier();
sum=part[0];
//#if SINKS
sum+=exp(sink - m);
//#endif
let some=sum>0.0;
let scale=select(0.0,1.0/max(sum,1.0e-30),some);
for (var j=t;j<p.k;j+=THREADS){weights[at+j]*=scale;}
//#if LSE
if(t==0u){lse[p.lse_offset+row]=select(0xff800000u,bitcast<u32>(m+log(max(sum,1.0e-30))),some);}
//#endif
}
`,
  embedding: `
struct Params{
count:u32,
pitch:u32,
e:u32,
ids_offset:u32,
ids_stride:u32,
weight_offset:u32,
weight_row:u32,
weight_col:u32,
out_offset:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>ids:array<u32>;
@group(0)@binding(2)var<storage,read>weight:array<f32>; //#storage WEIGHT
@group(0)@binding(3)var<storage,read_write>out:array<f32>;
fn load_weight(i:u32) ->f32{} //#load weight WEIGHT
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id:vec3u){
let i=id.y*p.pitch+id.x;
if(i>=p.count){return;}
let row=ids[p.ids_offset+i/p.e*p.ids_stride];
out[p.out_offset+i]=load_weight(p.weight_offset+row*p.weight_row+i%p.e*p.weight_col);
}
`,
  flash: `
//#flags WIDE=false SCALED=false OVERLAP=false LAZY=false RESIDENT=false SPLIT=false BLOCKS=true SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SINKS=true LSE=true OUT4=false SHUFFLE=false
const D: u32 = 64u; //#constant
const DV: u32 = 64u; //#constant
const TY: u32 = 16u; //#constant
const RV: u32 = 1u; //#constant
const DC: u32 = 8u; //#constant
const VC: u32 = 16u; //#constant
const R:u32=RV*4u;
const BQ:u32=TY*R;
const BK:u32=32u;
const THREADS:u32=TY*8u;
const D4:u32=(D+3u)/4u;
const DV4:u32=(DV+3u)/4u;
const NI:u32=(DV4+7u)/8u;
const PITCH:u32=DC+1u;
const P_PITCH:u32=TY*RV+1u;
const Q_WIDTH:u32=(D4+DC - 1u)/DC*DC;
//#if WIDE
//#if RESIDENT
const KEYS:u32=BQ*Q_WIDTH/DC;
const WEIGHTS:u32=KEYS;
//#else
const KEYS:u32=BQ;
const WEIGHTS:u32=0u;
//#endif
const QK_SIZE:u32=KEYS+BK;
const VALUES:u32=WEIGHTS+BK;
const PV_SIZE:u32=VALUES+(VC*NI+1u)/2u;
//#else
//#if RESIDENT
const Q_PITCH:u32=Q_WIDTH+1u;
const WEIGHTS:u32=BQ*Q_PITCH;
//#else
const Q_PITCH:u32=PITCH;
const WEIGHTS:u32=0u;
//#endif
const KEYS:u32=BQ*Q_PITCH;
const QK_SIZE:u32=KEYS+BK*PITCH;
const VALUES:u32=WEIGHTS+BK*P_PITCH;
const PV_SIZE:u32=VALUES+VC*DV4;
//#endif
const STAGE:u32=max(QK_SIZE,PV_SIZE);
const JOINT:u32=THREADS*RV;
const Q_TURNS:u32=(BQ*DC+THREADS - 1u)/THREADS;
const K_TURNS:u32=(BK*DC+THREADS - 1u)/THREADS;
const V_TURNS:u32=(VC*DV4+THREADS - 1u)/THREADS;
const NONE:u32=0x7fffffffu;
const LOWEST:f32=-3.4028234e38;
const GROWTH:f32=5.5451774;
struct Params{
q:u32,
k:u32,
heads:u32,
groups:u32,
pack:u32,
q_offset:u32,
q_b:u32,
q_h:u32,
q_n:u32,
k_offset:u32,
k_b:u32,
k_h:u32,
k_n:u32,
v_offset:u32,
v_b:u32,
v_h:u32,
v_n:u32,
key_scales_offset:u32,
key_scales_b:u32,
key_scales_h:u32,
key_scales_n:u32,
value_scales_offset:u32,
value_scales_b:u32,
value_scales_h:u32,
value_scales_n:u32,
out_offset:u32,
lse_offset:u32,
padding_offset:u32,
padding_b:u32,
padding_k:u32,
mask_offset:u32,
mask_b:u32,
mask_h:u32,
mask_q:u32,
mask_k:u32,
sinks_offset:u32,
sinks_stride:u32,
query_offset:i32,
window_left:i32,
window_right:i32,
scaling:f32,
softcap:f32,
splits:u32,
split_keys:u32,
block_q:u32,
block_k:u32,
lists_offset:u32,
list_b:u32,
list_h:u32,
list_q:u32,
entries_offset:u32,
bits_offset:u32,
bits_block:u32,
bits_q:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>query:array<f32>; //#storage QUERY
@group(0)@binding(2)var<storage,read>key:array<f32>; //#storage KEY
@group(0)@binding(3)var<storage,read>value:array<f32>; //#storage VALUE
//#if SPLIT
@group(0)@binding(4)var<storage,read_write>parts:array<vec4f>;
//#elif OUT4
@group(0)@binding(4)var<storage,read_write>out:array<vec4f>;
//#else
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
//#endif
//#if LSE
@group(0)@binding(5)var<storage,read_write>lse:array<u32>;
//#endif
//#if PADDING
@group(0)@binding(6)var<storage,read>padding:array<u32>;
//#endif
//#if MASK != none
@group(0)@binding(7)var<storage,read>mask:array<u32>;
//#endif
//#if SINKS
@group(0)@binding(8)var<storage,read>sinks:array<f32>;
//#endif
//#if SCALED
@group(0)@binding(11)var<storage,read>key_scales:array<f32>;
@group(0)@binding(12)var<storage,read>value_scales:array<f32>;
var<private>key_scale:u32;
var<private>value_scale:u32;
//#endif
//#if BLOCKS
@group(0)@binding(9)var<storage,read>lists:array<u32>;
@group(0)@binding(10)var<storage,read>bits:array<u32>;
var<workgroup>shown:array<u32,BQ>;
var<workgroup>any_shown:atomic<u32>;
var<workgroup>soonest:atomic<u32>;
var<workgroup>next_tile:u32;
//#endif
//#if WIDE
var<workgroup>stage:array<array<vec4f,17>,STAGE>;
//#else
var<workgroup>stage:array<vec4f,STAGE>;
//#endif
var<workgroup>joint:array<vec4f,JOINT>;
fn query4(i:u32,n:u32) ->vec4f{} //#load4 query QUERY
fn key4(i:u32,n:u32) ->vec4f{} //#load4 key KEY
fn value4(i:u32,n:u32) ->vec4f{} //#load4 value VALUE
//#if BLOCKS
fn is_read(j:u32,bit:u32) ->bool{return j<p.k&&((atomicLoad(&any_shown)>>bit)&1u) !=0u;}
//#else
fn is_read(j:u32,bit:u32) ->bool{return j<p.k;}
//#endif
//#if WIDE
fn put_query(chunk:u32,row:u32,d:u32,x:vec4f){stage[chunk*BQ+row][d]=x;}
fn put_key(key:u32,d:u32,x:vec4f){stage[KEYS+key][d]=x;}
fn put_weight(key:u32,rows:u32,x:vec4f){stage[WEIGHTS+key][rows]=x;}
fn put_value(key:u32,i:u32,x:vec4f){
let group=key*NI+i/8u;
stage[VALUES+group/2u][group%2u*8u+i%8u]=x;
}
fn staged_query(chunk:u32,row:u32,d:u32) ->vec4f{return stage[chunk*BQ+row][d];}
fn staged_key(key:u32,d:u32) ->vec4f{return stage[KEYS+key][d];}
fn staged_weight(key:u32,rows:u32) ->vec4f{return stage[WEIGHTS+key][rows];}
fn staged_value(key:u32,lane:u32,i:u32) ->vec4f{
let group=key*NI+i;
return stage[VALUES+group/2u][lane+group%2u*8u];
}
//#else
fn put_query(chunk:u32,row:u32,d:u32,x:vec4f){stage[row*Q_PITCH+chunk*DC+d]=x;}
fn put_key(key:u32,d:u32,x:vec4f){stage[KEYS+key*PITCH+d]=x;}
fn put_weight(key:u32,rows:u32,x:vec4f){stage[WEIGHTS+key*P_PITCH+rows]=x;}
fn put_value(key:u32,i:u32,x:vec4f){stage[VALUES+key*DV4+i]=x;}
fn staged_query(chunk:u32,row:u32,d:u32) ->vec4f{return stage[row*Q_PITCH+chunk*DC+d];}
fn staged_key(key:u32,d:u32) ->vec4f{return stage[KEYS+key*PITCH+d];}
fn staged_weight(key:u32,rows:u32) ->vec4f{return stage[WEIGHTS+key*P_PITCH+rows];}
fn staged_value(key:u32,lane:u32,i:u32) ->vec4f{return stage[VALUES+key*DV4+lane+i*8u];}
//#endif
fn key_of(base:u32,j:u32,bit:u32,d:u32) ->vec4f{
if(d>=D||!is_read(j,bit)){return vec4f(0.0);}
//#if SCALED
return key4(base+j*p.k_n+d,D - d)*key_scales[key_scale+j*p.key_scales_n];
//#else
return key4(base+j*p.k_n+d,D - d);
//#endif
}
fn value_of(base:u32,j:u32,bit:u32,d:u32) ->vec4f{
if(d>=DV||!is_read(j,bit)){return vec4f(0.0);}
//#if SCALED
return value4(base+j*p.v_n+d,DV - d)*value_scales[value_scale+j*p.value_scales_n];
//#else
return value4(base+j*p.v_n+d,DV - d);
//#endif
}
fn query_of(b:u32,head0:u32,line:u32,d:u32) ->vec4f{
if(d>=D||line>=p.q*p.pack){return vec4f(0.0);}
return query4(p.q_offset+b*p.q_b+(head0+line/p.q)*p.q_h+line%p.q*p.q_n+d,D - d);
}
//#if LAZY
fn exp_by_polynomial(x:vec4f) ->vec4f{
let y=max(x,vec4f(-87.0))*1.44269504;
let n=round(y);
let f=y - n;
var v=fma(f,vec4f(0.000154531629),vec4f(0.00133908634));
v=fma(f,v,vec4f(0.00961808256));
v=fma(f,v,vec4f(0.0555035711));
v=fma(f,v,vec4f(0.240226508));
v=fma(f,v,vec4f(0.693147188));
v=fma(f,v,vec4f(1.0));
return bitcast<vec4f>(bitcast<vec4i>(v)+(vec4i(n)<<vec4u(23u)));
}
//#endif
//#if SOFTCAP
fn tanh_of(v:vec4f) ->vec4f{
let a=min(abs(v),vec4f(15.0));
let s=v*v;
let e=1.0 - 2.0/(exp(2.0*a)+1.0);
let series=v+v*s*(-0.33333333+s*(0.13333333+s*(-0.053968254+s*0.021869489)));
return select(select(-e,e,v>=vec4f(0.0)),series,a<vec4f(0.25));
}
//#endif
fn rolled(n:u32) ->u32{return min(n,n*p.heads);}
//#if BLOCKS
fn low(n:u32) ->u32{return select((1u<<n) - 1u,0xffffffffu,n>=32u);}
fn shown_by(first:u32,end:u32,bits_row:u32,j0:u32) ->u32{
var word=0u;
for (var e=first;e<end;e+=2u){
let block=lists[e]*p.block_k;
if(block>=j0+BK){break;}
let first_key=max(block,j0);
let to=min(block+p.block_k,j0+BK);
let own=lists[e+1u];
var seen=0xffffffffu;
if(own !=0xffffffffu){
seen=0u;
for (var i=(first_key - block)/8u;i<=(to - 1u - block)/8u;i++){
let v=bits[bits_row+own*p.bits_block+i]&0xffu;
let key0=block+i*8u;
if(key0>=j0){seen|=v<<(key0 - j0);}else{seen|=v>>(j0 - key0);}
}
}
word|=seen&low(to - j0)&~low(first_key - j0);
}
return word;
}
fn tile_of(entry:u32,end:u32,least:u32) ->u32{
if(entry>=end){return NONE;}
return max(lists[entry]*p.block_k,least)/BK*BK;
}
//#endif
//#if SHUFFLE
fn max_of_eight(x:vec4f) ->vec4f{
var y=max(x,subgroupShuffleXor(x,1u));
y=max(y,subgroupShuffleXor(y,2u));
return max(y,subgroupShuffleXor(y,4u));
}
fn sum_of_eight(x:vec4f) ->vec4f{
var y=x+subgroupShuffleXor(x,1u);
y+=subgroupShuffleXor(y,2u);
return y+subgroupShuffleXor(y,4u);
}
//#endif
fn pick(i:u32,a:vec4f,b:vec4f,c:vec4f,d:vec4f) ->vec4f{
return select(select(a,b,i==1u),select(c,d,i==3u),i>=2u);
}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let ty=t/8u;
let tx=t%8u;
let b=wg.z;
let head0=wg.y*p.pack;
let kv_head=head0/p.groups;
//#if SPLIT
let split=wg.x%p.splits;
let row0=wg.x/p.splits*BQ;
//#else
let row0=wg.x*BQ;
//#endif
let rows=p.q*p.pack;
let k_base=p.k_offset+b*p.k_b+kv_head*p.k_h;
let v_base=p.v_offset+b*p.v_b+kv_head*p.v_h;
//#if SCALED
key_scale=p.key_scales_offset+b*p.key_scales_b+kv_head*p.key_scales_h;
value_scale=p.value_scales_offset+b*p.value_scales_b+kv_head*p.value_scales_h;
//#endif
var low=i32(row0);
var high=i32(min(row0+BQ,rows)) - 1;
if(p.pack>1u){
low=0;
high=i32(p.q) - 1;
}
var begin=0;
var end=i32(p.k);
//#if CAUSAL
end=min(end,high+p.query_offset+1);
//#endif
//#if LEFT
begin=max(0,low+p.query_offset - p.window_left)/i32(BK)*i32(BK);
//#endif
//#if RIGHT
end=min(end,high+p.query_offset+p.window_right+1);
//#endif
//#if SPLIT
begin=max(begin,i32(split*p.split_keys));
end=min(end,i32((split+1u)*p.split_keys));
//#endif
var row:array<vec4u,RV>; //#scalars
var place:array<vec4u,RV>; //#scalars
var position:array<vec4i,RV>; //#scalars
var alive:array<vec4<bool>,RV>; //#scalars
//#if MASK != none
var mask_row:array<vec4u,RV>; //#scalars
//#endif
var m:array<vec4f,RV>; //#scalars
var l:array<vec4f,RV>; //#scalars
var o:array<vec4f,R*NI>; //#scalars
var s:array<f32,R*4u>; //#scalars
var qv:array<vec4f,R>; //#scalars
var kv:array<vec4f,4>; //#scalars
var w:array<vec4f,R>; //#scalars
//#if SHUFFLE
var reach:array<vec4f,RV>; //#scalars
//#endif
//#if OVERLAP
var next_keys:array<vec4f,K_TURNS>; //#scalars
var next_values:array<vec4f,V_TURNS>; //#scalars
//#endif
//#unroll
for (var v=0u;v<RV;v++){
row[v]=row0+ty*R+v*4u+vec4u(0u,1u,2u,3u);
place[v]=row[v]%p.q;
position[v]=vec4i(place[v])+p.query_offset;
alive[v]=row[v]<vec4u(rows);
//#if ZERO_QUERIES
//#unroll DEEP
for (var r=0u;r<rolled(4u);r++){
if(position[v][r]>=0&&position[v][r]<i32(p.k)){
alive[v][r]=alive[v][r]&&padding[p.padding_offset+b*p.padding_b+u32(position[v][r])*p.padding_k] !=0u;
}
}
//#endif
//#if MASK != none
mask_row[v]=p.mask_offset+b*p.mask_b+(head0+row[v]/p.q)*p.mask_h+place[v]*p.mask_q;
//#endif
m[v]=vec4f(LOWEST);
l[v]=vec4f(0.0);
}
//#if RESIDENT
for (var i=t;i<BQ*Q_WIDTH;i+=THREADS){
let d=i%Q_WIDTH;
put_query(d/DC,i/Q_WIDTH,d%DC,query_of(b,head0,row0+i/Q_WIDTH,d*4u));
}
//#endif
//#if OVERLAP
//#unroll
for (var u=0u;u<K_TURNS;u++){
let i=t+u*THREADS;
next_keys[u]=key_of(k_base,u32(begin)+i/DC,0u,i%DC*4u);
}
//#endif
//#if BLOCKS
var entry=0u;
var entries_end=0u;
var bits_row=0u;
if(t<BQ&&row0+t<rows){
let i=(row0+t)%p.q;
let list=p.lists_offset+b*p.list_b+(head0+(row0+t)/p.q)*p.list_h+i/p.block_q*p.list_q;
entry=p.entries_offset+2u*lists[list];
entries_end=p.entries_offset+2u*lists[list+1u];
bits_row=p.bits_offset+i%p.block_q*p.bits_q;
}
if(t==0u){atomicStore(&soonest,NONE);}
workgroupBarrier();
while (entry<entries_end&&(lists[entry]+1u)*p.block_k<=u32(begin)){entry+=2u;}
atomicMin(&soonest,tile_of(entry,entries_end,u32(begin)));
workgroupBarrier();
if(t==0u){
next_tile=atomicLoad(&soonest);
atomicStore(&soonest,NONE);
atomicStore(&any_shown,0u);
}
var k0=i32(workgroupUniformLoad(&next_tile));
while (k0<end){
let j0=u32(k0);
if(t<BQ){
let word=shown_by(entry,entries_end,bits_row,j0);
shown[t]=word;
atomicOr(&any_shown,word);
while (entry<entries_end&&(lists[entry]+1u)*p.block_k<=j0+BK){entry+=2u;}
atomicMin(&soonest,tile_of(entry,entries_end,j0+BK));
}
//#else
for (var k0=begin;k0<end;k0+=i32(BK)){
let j0=u32(k0);
//#endif
//#unroll
for (var i=0u;i<R*4u;i++){
s[i]=0.0;
}
for (var d0=0u;d0<D4;d0+=DC){
workgroupBarrier();
//#if !RESIDENT
//#unroll DEEP
for (var u=0u;u<rolled(Q_TURNS);u++){
let i=t+u*THREADS;
if(i<BQ*DC){put_query(0u,i/DC,i%DC,query_of(b,head0,row0+i/DC,(d0+i%DC)*4u));}
}
//#endif
//#if OVERLAP
//#unroll
for (var u=0u;u<K_TURNS;u++){
let i=t+u*THREADS;
if(i<BK*DC){put_key(i/DC,i%DC,next_keys[u]);}
}
//#else
//#unroll DEEP
for (var u=0u;u<rolled(K_TURNS);u++){
let i=t+u*THREADS;
if(i<BK*DC){
put_key(i/DC,i%DC,key_of(k_base,j0+i/DC,i/DC,(d0+i%DC)*4u));
}
}
//#endif
workgroupBarrier();
//#if OVERLAP
if(d0+DC<D4){
//#unroll
for (var u=0u;u<K_TURNS;u++){
let i=t+u*THREADS;
next_keys[u]=key_of(k_base,j0+i/DC,0u,(d0+DC+i%DC)*4u);
}
}else{
//#unroll
for (var u=0u;u<V_TURNS;u++){
let i=t+u*THREADS;
next_values[u]=value_of(v_base,j0+i/DV4,0u,i%DV4*4u);
}
}
//#endif
//#if RESIDENT
let chunk=d0/DC;
//#else
let chunk=0u;
//#endif
//#unroll DEEP
for (var d=0u;d<rolled(DC);d++){
//#unroll
for (var r=0u;r<R;r++){
qv[r]=staged_query(chunk,ty*R+r,d);
}
//#unroll
for (var c=0u;c<4u;c++){
kv[c]=staged_key(tx+c*8u,d);
}
//#unroll
for (var r=0u;r<R;r++){
//#unroll
for (var c=0u;c<4u;c++){
s[r*4u+c]=fma(qv[r].x,kv[c].x,s[r*4u+c]);
s[r*4u+c]=fma(qv[r].y,kv[c].y,s[r*4u+c]);
s[r*4u+c]=fma(qv[r].z,kv[c].z,s[r*4u+c]);
s[r*4u+c]=fma(qv[r].w,kv[c].w,s[r*4u+c]);
}
}
}
}
//#unroll
for (var v=0u;v<RV;v++){
//#unroll
for (var c=0u;c<4u;c++){
w[v*4u+c]=vec4f(s[v*16u+c],s[v*16u+4u+c],s[v*16u+8u+c],s[v*16u+12u+c])*p.scaling;
}
var top=vec4f(LOWEST);
//#unroll DEEP
for (var c=0u;c<rolled(4u);c++){
var x=pick(c,w[v*4u],w[v*4u+1u],w[v*4u+2u],w[v*4u+3u]);
let j=j0+tx+c*8u;
var seen=alive[v]&vec4<bool>(j<p.k);
//#if BLOCKS
let first_row=ty*R+v*4u;
let words=vec4u(shown[first_row],shown[first_row+1u],shown[first_row+2u],shown[first_row+3u]);
seen=seen&(((words>>vec4u(tx+c*8u))&vec4u(1u)) !=vec4u(0u));
//#endif
//#if SOFTCAP
x=p.softcap*tanh_of(x/p.softcap);
//#endif
//#if CAUSAL
seen=seen&(vec4i(i32(j))<=position[v]);
//#endif
//#if LEFT
seen=seen&(vec4i(i32(j))>=position[v] - p.window_left);
//#endif
//#if RIGHT
seen=seen&(vec4i(i32(j))<=position[v]+p.window_right);
//#endif
//#if PADDING
seen=seen&vec4<bool>(padding[p.padding_offset+b*p.padding_b+j*p.padding_k] !=0u);
//#endif
//#if MASK != none
let at=mask_row[v]+j*p.mask_k;
let bias=vec4u(mask[at.x],mask[at.y],mask[at.z],mask[at.w]);
//#endif
//#if MASK == bool
seen=seen&(bias !=vec4u(0u));
//#elif MASK == additive
seen=seen&(bias<vec4u(0xfeffffffu));
x+=bitcast<vec4f>(select(vec4u(0u),bias,seen));
//#endif
x=select(vec4f(LOWEST),x,seen);
top=max(top,x);
//#unroll
for (var i=0u;i<4u;i++){
w[v*4u+i]=select(w[v*4u+i],x,c==i);
}
}
//#if SHUFFLE
reach[v]=max_of_eight(top);
//#else
joint[t*RV+v]=top;
//#endif
}
workgroupBarrier();
//#unroll
for (var v=0u;v<RV;v++){
//#if SHUFFLE
var top=max(m[v],reach[v]);
//#else
var top=m[v];
//#unroll
for (var i=0u;i<8u;i++){
top=max(top,joint[(ty*8u+i)*RV+v]);
}
//#endif
//#if LAZY
let grown=top>m[v]+vec4f(GROWTH);
if(any(grown)){
top=select(m[v],top,grown);
let shrink=select(vec4f(1.0),exp(m[v] - top),grown);
//#else
{
let shrink=exp(m[v] - top);
//#endif
m[v]=top;
l[v]*=shrink;
//#unroll
for (var r=0u;r<4u;r++){
//#unroll
for (var i=0u;i<NI;i++){
o[(v*4u+r)*NI+i]*=shrink[r];
}
}
}
//#unroll DEEP
for (var c=0u;c<rolled(4u);c++){
let x=pick(c,w[v*4u],w[v*4u+1u],w[v*4u+2u],w[v*4u+3u]);
//#if LAZY
var e=vec4f(0.0);
if(c%2u==0u){e=exp(x - m[v]);}else{e=exp_by_polynomial(x - m[v]);}
e=select(e,vec4f(0.0),x<=vec4f(LOWEST));
//#else
let e=select(exp(x - m[v]),vec4f(0.0),x<=vec4f(LOWEST));
//#endif
l[v]+=e;
put_weight(tx+c*8u,ty*RV+v,e);
}
}
for (var v0=0u;v0<BK;v0+=VC){
if(v0>0u){workgroupBarrier();}
//#if OVERLAP
//#unroll
for (var u=0u;u<V_TURNS;u++){
let i=t+u*THREADS;
if(i<VC*DV4){put_value(i/DV4,i%DV4,next_values[u]);}
}
//#else
//#unroll DEEP
for (var u=0u;u<rolled(V_TURNS);u++){
let i=t+u*THREADS;
if(i<VC*DV4){
put_value(i/DV4,i%DV4,value_of(v_base,j0+v0+i/DV4,v0+i/DV4,i%DV4*4u));
}
}
//#endif
workgroupBarrier();
//#if OVERLAP
if(v0+VC<BK){
//#unroll
for (var u=0u;u<V_TURNS;u++){
let i=t+u*THREADS;
next_values[u]=value_of(v_base,j0+v0+VC+i/DV4,0u,i%DV4*4u);
}
}else if(k0+i32(BK)<end){
//#unroll
for (var u=0u;u<K_TURNS;u++){
let i=t+u*THREADS;
next_keys[u]=key_of(k_base,j0+BK+i/DC,0u,i%DC*4u);
}
}
//#endif
//#unroll DEEP
for (var j=0u;j<rolled(VC);j++){
//#unroll
for (var v=0u;v<RV;v++){
qv[v]=staged_weight(v0+j,ty*RV+v);
}
//#unroll
for (var i=0u;i<NI;i++){
let x=staged_value(j,tx,i);
//#unroll
for (var v=0u;v<RV;v++){
//#unroll
for (var r=0u;r<4u;r++){
o[(v*4u+r)*NI+i]=fma(vec4f(qv[v][r]),x,o[(v*4u+r)*NI+i]);
}
}
}
}
}
//#if BLOCKS
if(t==0u){
next_tile=atomicLoad(&soonest);
atomicStore(&soonest,NONE);
atomicStore(&any_shown,0u);
}
k0=i32(workgroupUniformLoad(&next_tile));
//#endif
}
workgroupBarrier();
//#if !SHUFFLE
//#unroll
for (var v=0u;v<RV;v++){
joint[t*RV+v]=l[v];
}
workgroupBarrier();
//#endif
//#unroll
for (var v=0u;v<RV;v++){
//#if SHUFFLE
l[v]=sum_of_eight(l[v]);
//#else
l[v]=vec4f(0.0);
//#unroll
for (var i=0u;i<8u;i++){
l[v]+=joint[(ty*8u+i)*RV+v];
}
//#endif
//#if SPLIT
let scale=vec4f(1.0);
//#else
var shrink=vec4f(1.0);
//#if SINKS
let head=min(head0+row[v]/p.q,vec4u(p.heads - 1u))*p.sinks_stride+p.sinks_offset;
let sink=vec4f(sinks[head.x],sinks[head.y],sinks[head.z],sinks[head.w]);
let top=max(m[v],sink);
shrink=exp(m[v] - top);
l[v]=l[v]*shrink+exp(sink - top);
m[v]=top;
//#endif
let some=l[v]>vec4f(0.0);
let scale=select(vec4f(0.0),shrink/max(l[v],vec4f(1.0e-30)),some);
//#if LSE
let sums=select(vec4u(0xff800000u),bitcast<vec4u>(m[v]+log(max(l[v],vec4f(1.0e-30)))),some);
//#endif
//#endif
//#unroll DEEP
for (var r=0u;r<rolled(4u);r++){
if(row[v][r]<rows){
let h=head0+row[v][r]/p.q;
//#if SPLIT
let at=(((b*p.heads+h)*p.q+place[v][r])*p.splits+split)*(DV4+1u);
if(tx==0u){parts[at]=vec4f(m[v][r],l[v][r],0.0,0.0);}
//#else
let at=p.out_offset+((b*p.q+place[v][r])*p.heads+h)*DV;
//#endif
//#unroll
for (var c=0u;c<NI;c++){
let d=(tx+c*8u)*4u;
let x=pick(r,o[v*4u*NI+c],o[(v*4u+1u)*NI+c],o[(v*4u+2u)*NI+c],o[(v*4u+3u)*NI+c])*scale[r];
//#if SPLIT
if(d<DV){parts[at+1u+d/4u]=x;}
//#elif OUT4
if(d<DV){out[(at+d)/4u]=x;}
//#else
if(d<DV){out[at+d]=x.x;}
if(d+1u<DV){out[at+d+1u]=x.y;}
if(d+2u<DV){out[at+d+2u]=x.z;}
if(d+3u<DV){out[at+d+3u]=x.w;}
//#endif
}
//#if LSE
if(tx==0u){lse[p.lse_offset+(b*p.heads+h)*p.q+place[v][r]]=sums[r];}
//#endif
}
}
}
}
`,
  flash_few: `
//#flags SCALED=false SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SHUFFLE=false SHUFFLE16=false
const D: u32 = 64u; //#constant
const DV: u32 = 64u; //#constant
const LANES: u32 = 8u; //#constant
const ROWS: u32 = 4u; //#constant
const KEYS: u32 = 4u; //#constant
const THREADS:u32=128u;
const GROUPS:u32=THREADS/LANES;
const STEP:u32=GROUPS*KEYS;
const D4:u32=(D+3u)/4u;
const DV4:u32=(DV+3u)/4u;
const NK:u32=(D4+LANES - 1u)/LANES;
const NV:u32=(DV4+LANES - 1u)/LANES;
const RV:u32=(ROWS+3u)/4u;
const R4:u32=RV*4u;
const LOWEST:f32=-3.4028234e38;
struct Params{
q:u32,
k:u32,
heads:u32,
groups:u32,
pack:u32,
q_offset:u32,
q_b:u32,
q_h:u32,
q_n:u32,
k_offset:u32,
k_b:u32,
k_h:u32,
k_n:u32,
v_offset:u32,
v_b:u32,
v_h:u32,
v_n:u32,
key_scales_offset:u32,
key_scales_b:u32,
key_scales_h:u32,
key_scales_n:u32,
value_scales_offset:u32,
value_scales_b:u32,
value_scales_h:u32,
value_scales_n:u32,
out_offset:u32,
lse_offset:u32,
padding_offset:u32,
padding_b:u32,
padding_k:u32,
mask_offset:u32,
mask_b:u32,
mask_h:u32,
mask_q:u32,
mask_k:u32,
sinks_offset:u32,
sinks_stride:u32,
query_offset:i32,
window_left:i32,
window_right:i32,
scaling:f32,
softcap:f32,
splits:u32,
split_keys:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>query:array<f32>; //#storage QUERY
@group(0)@binding(2)var<storage,read>key:array<f32>; //#storage KEY
@group(0)@binding(3)var<storage,read>value:array<f32>; //#storage VALUE
@group(0)@binding(4)var<storage,read_write>parts:array<vec4f>;
//#if PADDING
@group(0)@binding(6)var<storage,read>padding:array<u32>;
//#endif
//#if MASK != none
@group(0)@binding(7)var<storage,read>mask:array<u32>;
//#endif
//#if SCALED
@group(0)@binding(11)var<storage,read>key_scales:array<f32>;
@group(0)@binding(12)var<storage,read>value_scales:array<f32>;
//#endif
var<workgroup>joint:array<vec4f,THREADS*RV>;
var<workgroup>tops:array<vec4f,GROUPS*RV>;
var<workgroup>sums:array<vec4f,GROUPS*RV>;
fn query4(i:u32,n:u32) ->vec4f{} //#load4 query QUERY
fn key4(i:u32,n:u32) ->vec4f{} //#load4 key KEY
fn value4(i:u32,n:u32) ->vec4f{} //#load4 value VALUE
fn key_of(base:u32,j:u32,end:u32,d:u32) ->vec4f{
if(d>=D||j>=end){return vec4f(0.0);}
return key4(base+j*p.k_n+d,D - d);
}
fn value_of(base:u32,j:u32,end:u32,d:u32) ->vec4f{
if(d>=DV||j>=end){return vec4f(0.0);}
return value4(base+j*p.v_n+d,DV - d);
}
fn query_of(b:u32,head0:u32,line:u32,d:u32) ->vec4f{
if(d>=D||line>=p.q*p.pack){return vec4f(0.0);}
return query4(p.q_offset+b*p.q_b+(head0+line/p.q)*p.q_h+line%p.q*p.q_n+d,D - d);
}
//#if SCALED
fn scale_of(first:u32,step:u32,j:u32,end:u32,of_key:bool) ->f32{
if(j>=end){return 0.0;}
if(of_key){return key_scales[first+j*step];}
return value_scales[first+j*step];
}
//#endif
//#if SOFTCAP
fn tanh_of(v:vec4f) ->vec4f{
let a=min(abs(v),vec4f(15.0));
let s=v*v;
let e=1.0 - 2.0/(exp(2.0*a)+1.0);
let series=v+v*s*(-0.33333333+s*(0.13333333+s*(-0.053968254+s*0.021869489)));
return select(select(-e,e,v>=vec4f(0.0)),series,a<vec4f(0.25));
}
//#endif
//#if SHUFFLE && LANES == 8 || SHUFFLE16
fn sum_of_group(x:vec4f) ->vec4f{
var y=x+subgroupShuffleXor(x,1u);
y+=subgroupShuffleXor(y,2u);
y+=subgroupShuffleXor(y,4u);
//#if LANES == 16
y+=subgroupShuffleXor(y,8u);
//#endif
return y;
}
//#endif
fn rolled(n:u32) ->u32{return min(n,n*p.heads);}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let group=t/LANES;
let lane=t%LANES;
let b=wg.z;
let head0=wg.y*p.pack;
let kv_head=head0/p.groups;
let split=wg.x%p.splits;
let row0=wg.x/p.splits*ROWS;
let rows=p.q*p.pack;
let k_base=p.k_offset+b*p.k_b+kv_head*p.k_h;
let v_base=p.v_offset+b*p.v_b+kv_head*p.v_h;
//#if SCALED
let key_scale=p.key_scales_offset+b*p.key_scales_b+kv_head*p.key_scales_h;
let value_scale=p.value_scales_offset+b*p.value_scales_b+kv_head*p.value_scales_h;
//#endif
var low=i32(row0);
var high=i32(min(row0+ROWS,rows)) - 1;
if(p.pack>1u){
low=0;
high=i32(p.q) - 1;
}
var begin=i32(split*p.split_keys);
var end=min(i32(p.k),i32((split+1u)*p.split_keys));
//#if CAUSAL
end=min(end,high+p.query_offset+1);
//#endif
//#if LEFT
begin=max(begin,low+p.query_offset - p.window_left);
//#endif
//#if RIGHT
end=min(end,high+p.query_offset+p.window_right+1);
//#endif
var row:array<vec4u,RV>; //#scalars DEEP
var position:array<vec4i,RV>; //#scalars DEEP
var alive:array<vec4<bool>,RV>; //#scalars DEEP
//#if MASK != none
var mask_row:array<vec4u,RV>; //#scalars DEEP
//#endif
var m:array<vec4f,RV>; //#scalars DEEP
var l:array<vec4f,RV>; //#scalars DEEP
var share:array<vec4f,RV>; //#scalars DEEP
var o:array<vec4f,R4*NV>; //#scalars DEEP
var qv:array<vec4f,ROWS*NK>; //#scalars DEEP
var kv:array<vec4f,KEYS*NK>; //#scalars DEEP
var vv:array<vec4f,KEYS*NV>; //#scalars DEEP
var w:array<vec4f,KEYS*RV>; //#scalars DEEP
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
row[v]=row0+v*4u+vec4u(0u,1u,2u,3u);
position[v]=vec4i(row[v]%p.q)+p.query_offset;
alive[v]=row[v]<vec4u(rows);
//#if ZERO_QUERIES
//#unroll DEEP
for (var r=0u;r<rolled(4u);r++){
if(position[v][r]>=0&&position[v][r]<i32(p.k)){
alive[v][r]=alive[v][r]&&padding[p.padding_offset+b*p.padding_b+u32(position[v][r])*p.padding_k] !=0u;
}
}
//#endif
//#if MASK != none
mask_row[v]=p.mask_offset+b*p.mask_b+(head0+row[v]/p.q)*p.mask_h+row[v]%p.q*p.mask_q;
//#endif
m[v]=vec4f(LOWEST);
}
//#unroll DEEP
for (var r=0u;r<rolled(ROWS);r++){
//#unroll DEEP
for (var i=0u;i<rolled(NK);i++){
qv[r*NK+i]=query_of(b,head0,row0+r,(lane+i*LANES)*4u);
}
}
for (var k0=begin;k0<end;k0+=i32(STEP)){
let j0=u32(k0)+group;
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
//#unroll DEEP
for (var i=0u;i<rolled(NK);i++){
kv[u*NK+i]=key_of(k_base,j0+u*GROUPS,u32(end),(lane+i*LANES)*4u);
}
}
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
//#unroll DEEP
for (var i=0u;i<rolled(NV);i++){
vv[u*NV+i]=value_of(v_base,j0+u*GROUPS,u32(end),(lane+i*LANES)*4u);
}
}
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
w[u*RV+v]=vec4f(0.0);
}
//#unroll DEEP
for (var r=0u;r<rolled(ROWS);r++){
//#unroll DEEP
for (var i=0u;i<rolled(NK);i++){
w[u*RV+r/4u][r%4u]+=dot(qv[r*NK+i],kv[u*NK+i]);
}
}
//#if SHUFFLE && LANES == 8 || SHUFFLE16
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
w[u*RV+v]=sum_of_group(w[u*RV+v]);
}
//#else
workgroupBarrier();
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
joint[t*RV+v]=w[u*RV+v];
}
workgroupBarrier();
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
w[u*RV+v]=vec4f(0.0);
for (var i=0u;i<LANES;i++){
w[u*RV+v]+=joint[(group*LANES+i)*RV+v];
}
}
//#endif
}
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
var top=m[v];
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
let j=j0+u*GROUPS;
//#if SCALED
var x=w[u*RV+v]*(p.scaling*scale_of(key_scale,p.key_scales_n,j,u32(end),true));
//#else
var x=w[u*RV+v]*p.scaling;
//#endif
var seen=alive[v]&vec4<bool>(j<u32(end));
//#if SOFTCAP
x=p.softcap*tanh_of(x/p.softcap);
//#endif
//#if CAUSAL
seen=seen&(vec4i(i32(j))<=position[v]);
//#endif
//#if LEFT
seen=seen&(vec4i(i32(j))>=position[v] - p.window_left);
//#endif
//#if RIGHT
seen=seen&(vec4i(i32(j))<=position[v]+p.window_right);
//#endif
//#if PADDING
seen=seen&vec4<bool>(padding[p.padding_offset+b*p.padding_b+j*p.padding_k] !=0u);
//#endif
//#if MASK != none
let at=mask_row[v]+j*p.mask_k;
let bias=vec4u(mask[at.x],mask[at.y],mask[at.z],mask[at.w]);
//#endif
//#if MASK == bool
seen=seen&(bias !=vec4u(0u));
//#elif MASK == additive
seen=seen&(bias<vec4u(0xfeffffffu));
x+=bitcast<vec4f>(select(vec4u(0u),bias,seen));
//#endif
x=select(vec4f(LOWEST),x,seen);
top=max(top,x);
w[u*RV+v]=x;
}
let shrink=exp(m[v] - top);
m[v]=top;
l[v]*=shrink;
//#unroll DEEP
for (var c=0u;c<rolled(4u);c++){
//#unroll DEEP
for (var i=0u;i<rolled(NV);i++){
o[(v*4u+c)*NV+i]*=shrink[c];
}
}
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
w[u*RV+v]=select(exp(w[u*RV+v] - top),vec4f(0.0),w[u*RV+v]<=vec4f(LOWEST));
l[v]+=w[u*RV+v];
//#if SCALED
w[u*RV+v]*=scale_of(value_scale,p.value_scales_n,j0+u*GROUPS,u32(end),false);
//#endif
}
}
//#unroll DEEP
for (var r=0u;r<rolled(ROWS);r++){
//#unroll DEEP
for (var u=0u;u<rolled(KEYS);u++){
//#unroll DEEP
for (var i=0u;i<rolled(NV);i++){
o[r*NV+i]=fma(vec4f(w[u*RV+r/4u][r%4u]),vv[u*NV+i],o[r*NV+i]);
}
}
}
}
if(lane==0u){
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
tops[group*RV+v]=m[v];
sums[group*RV+v]=l[v];
}
}
workgroupBarrier();
//#unroll DEEP
for (var v=0u;v<rolled(RV);v++){
var top=vec4f(LOWEST);
for (var g=0u;g<GROUPS;g++){top=max(top,tops[g*RV+v]);}
l[v]=vec4f(0.0);
for (var g=0u;g<GROUPS;g++){l[v]=fma(sums[g*RV+v],exp(tops[g*RV+v] - top),l[v]);}
share[v]=exp(m[v] - top);
m[v]=top;
}
//#unroll DEEP
for (var r=0u;r<rolled(ROWS);r++){
let line=row0+r;
let at=(((b*p.heads+head0+line/p.q)*p.q+line%p.q)*p.splits+split)*(DV4+1u);
if(t==0u&&line<rows){parts[at]=vec4f(m[r/4u][r%4u],l[r/4u][r%4u],0.0,0.0);}
//#unroll DEEP
for (var i=0u;i<rolled(NV);i++){
workgroupBarrier();
joint[t]=o[r*NV+i]*share[r/4u][r%4u];
workgroupBarrier();
if(t<LANES&&t+i*LANES<DV4&&line<rows){
var x=vec4f(0.0);
for (var g=0u;g<GROUPS;g++){x+=joint[g*LANES+t];}
parts[at+1u+t+i*LANES]=x;
}
}
}
}
`,
  flash_merge: `
//#flags SINKS=true LSE=true
const LANES:u32=32u;
const GROUPS:u32=8u;
const THREADS:u32=256u;
const MOST:u32=32u;
const LOWEST:f32=-3.4028234e38;
struct Params{
rows:u32,
pitch:u32,
heads:u32,
q:u32,
dv:u32,
splits:u32,
out_offset:u32,
lse_offset:u32,
sinks_offset:u32,
sinks_stride:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>parts:array<vec4f>;
@group(0)@binding(2)var<storage,read_write>out:array<f32>;
//#if LSE
@group(0)@binding(3)var<storage,read_write>lse:array<u32>;
//#endif
//#if SINKS
@group(0)@binding(4)var<storage,read>sinks:array<f32>;
//#endif
var<workgroup>tops:array<vec4f,MOST>;
var<workgroup>sums:array<vec4f,MOST>;
var<workgroup>joint:array<array<vec4f,LANES>,GROUPS>;
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let i=row%p.q;
let h=row/p.q%p.heads;
let b=row/p.q/p.heads;
let size=1u+(p.dv+3u)/4u;
let first=row*p.splits*size;
let fours=(p.splits+3u)/4u;
if(t<fours){
var top=vec4f(LOWEST);
var total=vec4f(0.0);
for (var c=0u;c<min(4u,p.splits - t*4u);c++){
let part=parts[first+(t*4u+c)*size];
top[c]=part.x;
total[c]=part.y;
}
tops[t]=top;
sums[t]=total;
}
workgroupBarrier();
var most=vec4f(LOWEST);
for (var s=0u;s<fours;s++){most=max(most,tops[s]);}
var m=max(max(most.x,most.y),max(most.z,most.w));
var sum=0.0;
//#if SINKS
let sink=sinks[p.sinks_offset+h*p.sinks_stride];
m=max(m,sink);
sum=exp(sink - m);
//#endif
workgroupBarrier();
if(t<fours){tops[t]=exp(tops[t] - m);}
workgroupBarrier();
var four=vec4f(0.0);
for (var s=0u;s<fours;s++){four=fma(sums[s],tops[s],four);}
sum+=(four.x+four.y)+(four.z+four.w);
let some=sum>0.0;
let scale=select(0.0,1.0/max(sum,1.0e-30),some);
let at=p.out_offset+((b*p.q+i)*p.heads+h)*p.dv;
for (var d0=0u;d0<p.dv;d0+=LANES*4u){
let d=d0+t%LANES*4u;
var x=vec4f(0.0);
if(d<p.dv){
for (var s=t/LANES;s<p.splits;s+=GROUPS){
x=fma(parts[first+s*size+1u+d/4u],vec4f(tops[s/4u][s%4u]),x);
}
}
joint[t/LANES][t%LANES]=x;
workgroupBarrier();
if(t<LANES&&d<p.dv){
for (var g=1u;g<GROUPS;g++){x+=joint[g][t];}
x*=scale;
out[at+d]=x.x;
if(d+1u<p.dv){out[at+d+1u]=x.y;}
if(d+2u<p.dv){out[at+d+2u]=x.z;}
if(d+3u<p.dv){out[at+d+3u]=x.w;}
}
workgroupBarrier();
}
//#if LSE
if(t==0u){lse[p.lse_offset+row]=select(0xff800000u,bitcast<u32>(m+log(max(sum,1.0e-30))),some);}
//#endif
}
`,
  kv_quantize: `
//#flags WORDS=true
alias Value = f32; //#alias IN
struct Params{
rows:u32,
pitch:u32,
h:u32,
n:u32,
d:u32,
x_offset:u32,
x_b:u32,
x_h:u32,
x_n:u32,
x_d:u32,
out_offset:u32,
out_b:u32,
out_h:u32,
out_n:u32,
scales_offset:u32,
scales_b:u32,
scales_h:u32,
scales_n:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
//#if WORDS
@group(0)@binding(2)var<storage,read_write>out:array<u32>;
//#else
@group(0)@binding(2)var<storage,read_write>out:array<i32>; //#storage OUT
//#endif
@group(0)@binding(3)var<storage,read_write>scales:array<u32>;
var<workgroup>peak:array<u32,64>;
fn load_x(i:u32) ->Value{} //#load x IN
//#if !WORDS
fn store_out(i: u32, v: i32) {} //#store out OUT
//#endif
fn divided(a:f32,b:f32) ->f32{
let x=bitcast<u32>(a);
let y=bitcast<u32>(b);
let m=(x&0x7fffffu)|0x800000u;
let n=(y&0x7fffffu)|0x800000u;
let shift=select(23u,24u,m<n);
var q=u32(f32(m)/f32(n)*f32(1u<<shift));
var rest=bitcast<i32>((m<<shift) - q*n);
let step=i32(n);
for (var i=0u;i<4u;i++){
let by=select(select(0,1,rest>=step),-1,rest<0);
q+=bitcast<u32>(by);
rest -=by*step;
}
q+=select(0u,1u,2*rest>step||(2*rest==step&&(q&1u)==1u));
let exponent=i32(x>>23u) - i32(y>>23u)+150 - i32(shift);
if(exponent<=0){return 0.0;}
return bitcast<f32>((u32(exponent)<<23u)+(q - 0x800000u));
}
fn rounded(v:f32,scale:f32) ->i32{
let magnitude=bitcast<u32>(v)&0x7fffffffu;
if(magnitude<0x800000u||scale==0.0){return 0;}
let q=i32(round(min(divided(bitcast<f32>(magnitude),scale),127.0)));
return select(q,-q,v<0.0);
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let n=row%p.n;
let h=row/p.n%p.h;
let b=row/p.n/p.h;
let x0=p.x_offset+b*p.x_b+h*p.x_h+n*p.x_n;
let out0=p.out_offset+b*p.out_b+h*p.out_h+n*p.out_n;
var most=0u;
for (var i=t;i<p.d;i+=64u){most=max(most,bitcast<u32>(load_x(x0+i*p.x_d))&0x7fffffffu);}
peak[t]=most;
for (var width=32u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){peak[t]=max(peak[t],peak[t+width]);}
}
workgroupBarrier();
most=peak[0];
let finite=most<0x7f800000u;
let scale=select(0.0,divided(bitcast<f32>(most),127.0),finite);
if(t==0u){scales[p.scales_offset+b*p.scales_b+h*p.scales_h+n*p.scales_n]=select(0x7fc00000u,bitcast<u32>(scale),finite);}
//#if WORDS
for (var i=t*4u;i<p.d;i+=256u){
var word=0u;
for (var k=0u;k<4u;k++){
word|=(bitcast<u32>(rounded(load_x(x0+(i+k)*p.x_d),scale))&255u)<<(k*8u);
}
out[(out0+i)/4u]=word;
}
//#else
for (var i=t;i<p.d;i+=64u){store_out(out0+i,rounded(load_x(x0+i*p.x_d),scale));}
//#endif
}
`,
  layer_norm: `
//#flags HAS_BIAS=true SUBGROUPS=false
const THREADS:u32=64u;
struct Params{
rows:u32,
pitch:u32,
n:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
weight_offset:u32,
weight_stride:u32,
bias_offset:u32,
bias_stride:u32,
out_offset:u32,
out_row:u32,
out_col:u32,
eps:f32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
@group(0)@binding(2)var<storage,read>weight:array<f32>; //#storage WEIGHT
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>part:array<f32,64>;
fn load_x(i:u32) ->f32{} //#load x IN
fn load_weight(i:u32) ->f32{} //#load weight WEIGHT
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
@compute @workgroup_size(64)
fn main(
//#if SUBGROUPS
@builtin(subgroup_size) size:u32,
@builtin(subgroup_invocation_id) lane:u32,
//#endif
@builtin(workgroup_id) wg:vec3u,
@builtin(local_invocation_index) t:u32,
){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let xi=p.x_offset+row*p.x_row;
let oi=p.out_offset+row*p.out_row;
var sum=0.0;
for (var j=t;j<p.n;j+=THREADS){sum+=load_x(xi+j*p.x_col);}
//#if SUBGROUPS
sum=subgroupAdd(sum);
if(lane==0u){part[t/size]=sum;}
workgroupBarrier();
sum=part[0];
for (var i=1u;i<THREADS/size;i++){sum+=part[i];}
//#else
part[t]=sum;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){part[t]+=part[t+width];}
}
workgroupBarrier();
sum=part[0];
//#endif
let mean=sum/f32(p.n);
workgroupBarrier();
sum=0.0;
for (var j=t;j<p.n;j+=THREADS){
let v=load_x(xi+j*p.x_col) - mean;
sum=fma(v,v,sum);
}
//#if SUBGROUPS
sum=subgroupAdd(sum);
if(lane==0u){part[t/size]=sum;}
workgroupBarrier();
sum=part[0];
for (var i=1u;i<THREADS/size;i++){sum+=part[i];}
//#else
part[t]=sum;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){part[t]+=part[t+width];}
}
workgroupBarrier();
sum=part[0];
//#endif
let scale=1.0/sqrt(sum/f32(p.n)+p.eps);
for (var j=t;j<p.n;j+=THREADS){
let v=(load_x(xi+j*p.x_col) - mean)*scale*load_weight(p.weight_offset+j*p.weight_stride);
//#if HAS_BIAS
out[oi+j*p.out_col]=v+load_bias(p.bias_offset+j*p.bias_stride);
//#else
out[oi+j*p.out_col]=v;
//#endif
}
}
`,
  linear: `
//#flags HAS_BIAS=true VECTOR=false DEEP=false
const ROWS: u32 = 4u; //#constant
const SEGMENTS: u32 = 4u; //#constant
const OUTPUTS:u32=64u/SEGMENTS;
const TOTALS:u32=(ROWS+SEGMENTS - 1u)/SEGMENTS;
const VECTORS:u32=8u;
const STEP:u32=VECTORS*4u;
const X_VECTORS:u32=ROWS*SEGMENTS*VECTORS;
const X_TURNS:u32=(X_VECTORS+63u)/64u;
const PITCH:u32=VECTORS+1u;
struct Params{
m:u32,
i:u32,
o:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
weight_offset:u32,
weight_row:u32,
weight_col:u32,
bias_offset:u32,
bias_stride:u32,
out_offset:u32,
out_row:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>;
@group(0)@binding(2)var<storage,read>weight:array<f32>; //#storage WEIGHT
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>tile:array<array<vec4f,PITCH>,64>;
var<workgroup>rows:array<array<vec4f,PITCH>,ROWS*SEGMENTS>;
var<workgroup>part:array<f32,64u*ROWS>;
//#if VECTOR
fn load4(i:u32,n:u32) ->vec4f{} //#load4 weight WEIGHT
//#else
fn load_weight(i:u32) ->f32{} //#load weight WEIGHT
//#endif
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
fn weight_at(o:u32,k:u32) ->vec4f{
let base=p.weight_offset+o*p.weight_row+k*p.weight_col;
if(o>=p.o||k>=p.i){return vec4f(0.0);}
//#if VECTOR
return load4(base,p.i - k);
//#else
let n=p.i - k;
let s=p.weight_col;
return vec4f(
load_weight(base),
select(0.0,load_weight(base+s),n>1u),
select(0.0,load_weight(base+2u*s),n>2u),
select(0.0,load_weight(base+3u*s),n>3u));
//#endif
}
fn rolled(n:u32) ->u32{return min(n,n*p.m);}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let lane_o=t/SEGMENTS;
let lane_s=t%SEGMENTS;
let o0=wg.x*OUTPUTS;
let row0=wg.y*ROWS;
var acc:array<f32,ROWS>; //#scalars
var total:array<f32,TOTALS>; //#scalars
//#if DEEP
var next:array<vec4f,VECTORS>; //#scalars
var next_x:array<vec4f,X_TURNS>; //#scalars
//#endif
for (var first=0u;first<p.i;first+=SEGMENTS*256u){
//#unroll
for (var r=0u;r<ROWS;r++){
acc[r]=0.0;
}
//#if DEEP
//#unroll
for (var s=0u;s<VECTORS;s++){
next[s]=weight_vector(o0,first,t+s*64u);
}
//#unroll
for (var s=0u;s<X_TURNS;s++){
next_x[s]=x_vector(row0,first,t+s*64u);
}
//#endif
let reach=min(256u,p.i - first);
for (var k=0u;k<reach;k+=STEP){
workgroupBarrier();
//#if DEEP
//#unroll
for (var s=0u;s<VECTORS;s++){
tile[(t+s*64u)/VECTORS][t%VECTORS]=next[s];
}
//#unroll
for (var s=0u;s<X_TURNS;s++){
if(t+s*64u<X_VECTORS){rows[(t+s*64u)/VECTORS][t%VECTORS]=next_x[s];}
}
//#else
for (var i=t;i<64u*VECTORS;i+=64u){
tile[i/VECTORS][i%VECTORS]=weight_vector(o0,first+k,i);
}
for (var i=t;i<X_VECTORS;i+=64u){
rows[i/VECTORS][i%VECTORS]=x_vector(row0,first+k,i);
}
//#endif
workgroupBarrier();
//#if DEEP
if(k+STEP<reach){
//#unroll
for (var s=0u;s<VECTORS;s++){
next[s]=weight_vector(o0,first+k+STEP,t+s*64u);
}
//#unroll
for (var s=0u;s<X_TURNS;s++){
next_x[s]=x_vector(row0,first+k+STEP,t+s*64u);
}
}
//#endif
//#unroll DEEP
for (var s=0u;s<rolled(VECTORS);s++){
let w=tile[t][s];
//#unroll
for (var r=0u;r<ROWS;r++){
let v=rows[r*SEGMENTS+lane_s][s];
acc[r]=fma(v.x,w.x,acc[r]);
acc[r]=fma(v.y,w.y,acc[r]);
acc[r]=fma(v.z,w.z,acc[r]);
acc[r]=fma(v.w,w.w,acc[r]);
}
}
}
//#unroll
for (var r=0u;r<ROWS;r++){
part[r*64u+t]=acc[r];
}
workgroupBarrier();
//#unroll
for (var i=0u;i<TOTALS;i++){
let r=min(lane_s+i*SEGMENTS,ROWS - 1u);
//#unroll
for (var s=0u;s<SEGMENTS;s++){
total[i]+=part[r*64u+lane_o*SEGMENTS+s];
}
}
}
let o=o0+lane_o;
//#unroll
for (var i=0u;i<TOTALS;i++){
let r=lane_s+i*SEGMENTS;
if(r<ROWS&&row0+r<p.m&&o<p.o){
//#if HAS_BIAS
out[p.out_offset+(row0+r)*p.out_row+o]=total[i]+load_bias(p.bias_offset+o*p.bias_stride);
//#else
out[p.out_offset+(row0+r)*p.out_row+o]=total[i];
//#endif
}
}
}
fn x_at(row:u32,k:u32) ->vec4f{
if(row>=p.m||k>=p.i){return vec4f(0.0);}
let base=p.x_offset+row*p.x_row+k*p.x_col;
let n=p.i - k;
return vec4f(
x[base],
select(0.0,x[base+p.x_col],n>1u),
select(0.0,x[base+2u*p.x_col],n>2u),
select(0.0,x[base+3u*p.x_col],n>3u));
}
fn weight_vector(o0:u32,k:u32,i:u32) ->vec4f{
let lane=i/VECTORS;
return weight_at(o0+lane/SEGMENTS,k+lane%SEGMENTS*256u+i%VECTORS*4u);
}
fn x_vector(row0:u32,k:u32,i:u32) ->vec4f{
let lane=i/VECTORS;
if(i>=X_VECTORS){return vec4f(0.0);}
return x_at(row0+lane/SEGMENTS,k+lane%SEGMENTS*256u+i%VECTORS*4u);
}
`,
  linear_matrix: `
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
//#flags HAS_BIAS=true
const RM: u32 = 2u; //#constant
const RN: u32 = 2u; //#constant
const ACROSS: u32 = 2u; //#constant
const DOWN:u32=4u/ACROSS;
const BM:u32=16u*RM*DOWN;
const BN:u32=16u*RN*ACROSS;
const MATRICES:u32=RM*RN;
const PITCH:u32=40u;
struct Params{
m:u32,
i:u32,
o:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
weight_offset:u32,
weight_row:u32,
weight_col:u32,
bias_offset:u32,
bias_stride:u32,
out_offset:u32,
out_row:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>;
@group(0)@binding(2)var<storage,read>weight:array<f32>; //#storage WEIGHT
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>left:array<f16,BM*PITCH>;
var<workgroup>right:array<f16,BN*PITCH>;
var<workgroup>result:array<f32,1024>;
fn load_weight(i:u32) ->f32{} //#load weight WEIGHT
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
@compute @workgroup_size(128)
fn main(
@builtin(workgroup_id) wg:vec3u,
@builtin(local_invocation_index) t:u32,
@builtin(subgroup_id) subgroup:u32,
){
let row0=wg.y*BM;
let o0=wg.x*BN;
let works=subgroup<4u;
let sub_row=subgroup/ACROSS*RM*16u;
let sub_col=subgroup%ACROSS*RN*16u;
var acc:array<subgroup_matrix_result<f32,16,16>,MATRICES>; //#scalars
for (var k=0u;k<p.i;k+=32u){
workgroupBarrier();
for (var s=t;s<BM*32u;s+=128u){
let row=row0+s/32u;
let col=k+s%32u;
var v=0.0;
if(row<p.m&&col<p.i){v=x[p.x_offset+row*p.x_row+col*p.x_col];}
left[s/32u*PITCH+s%32u]=f16(v);
}
for (var s=t;s<BN*32u;s+=128u){
let row=o0+s/32u;
let col=k+s%32u;
var v=0.0;
if(row<p.o&&col<p.i){v=load_weight(p.weight_offset+row*p.weight_row+col*p.weight_col);}
right[s/32u*PITCH+s%32u]=f16(v);
}
workgroupBarrier();
if(works){
for (var step=0u;step<32u;step+=16u){
//#unroll
for (var r=0u;r<RM;r++){
let a=subgroupMatrixLoad<subgroup_matrix_left<f16,16,16>>(
&left,(sub_row+r*16u)*PITCH+step,false,PITCH);
//#unroll
for (var c=0u;c<RN;c++){
let b=subgroupMatrixLoad<subgroup_matrix_right<f16,16,16>>(
&right,(sub_col+c*16u)*PITCH+step,true,PITCH);
acc[r*RN+c]=subgroupMatrixMultiplyAccumulate(a,b,acc[r*RN+c]);
}
}
}
}
}
//#unroll
for (var r=0u;r<RM;r++){
//#unroll
for (var c=0u;c<RN;c++){
workgroupBarrier();
if(works){
subgroupMatrixStore(&result,subgroup*256u,acc[r*RN+c],false,16u);
}
workgroupBarrier();
for (var s=t;s<1024u;s+=128u){
let who=s/256u;
let row=row0+(who/ACROSS*RM+r)*16u+s%256u/16u;
let o=o0+(who%ACROSS*RN+c)*16u+s%16u;
if(row<p.m&&o<p.o){
//#if HAS_BIAS
out[p.out_offset+row*p.out_row+o]=result[s]+load_bias(p.bias_offset+o*p.bias_stride);
//#else
out[p.out_offset+row*p.out_row+o]=result[s];
//#endif
}
}
}
}
}
`,
  linear_quantized: `
//#flags FORMAT=int8 HAS_BIAS=true PACKED_DOT=false
const RM: u32 = 1u; //#constant
const RECORD: u32 = 34u; //#constant
const VALUES: u32 = 2u; //#constant
const ROWS:u32=4u*RM;
const QUADS:u32=8u*RM;
struct Params{
m:u32,
groups:u32,
o:u32,
blocks:u32,
bias_offset:u32,
bias_stride:u32,
out_offset:u32,
out_row:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<u32>;
@group(0)@binding(2)var<storage,read>weight:array<u32>;
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>rows:array<vec4u,16u*QUADS>;
var<workgroup>row_scales:array<vec4f,2u*QUADS>;
var<workgroup>tile:array<vec4u,256>;
//#if FORMAT == int4
var<workgroup>corrections:array<vec4i,2u*QUADS>;
//#endif
//#if FORMAT != int8
var<workgroup>scales:array<vec4f,32>;
//#endif
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
fn dot4(a:u32,b:u32) ->i32{
//#if PACKED_DOT
return dot4I8Packed(a,b);
//#else
let left=vec4u(24u,16u,8u,0u);
let right=vec4u(24u);
return dot(bitcast<vec4i>(vec4u(a)<<left)>>right,bitcast<vec4i>(vec4u(b)<<left)>>right);
//#endif
}
fn dots(a:u32,w:vec4u) ->vec4i{
return vec4i(dot4(a,w.x),dot4(a,w.y),dot4(a,w.z),dot4(a,w.w));
}
fn four_rows(row:u32,g:u32,word:u32) ->vec4u{
if(g>=p.groups){return vec4u(0u);}
let base=(row*p.groups+g)*12u+word;
let step=p.groups*12u;
return vec4u(
select(0u,x[base],row<p.m),
select(0u,x[base+step],row+1u<p.m),
select(0u,x[base+2u*step],row+2u<p.m),
select(0u,x[base+3u*step],row+3u<p.m));
}
fn four_words(block:u32,g:u32,word:u32) ->vec4u{
if(block>=p.blocks||g>=p.groups){return vec4u(0u);}
let base=(block*p.groups+g)*RECORD+VALUES+word;
return vec4u(weight[base],weight[base+1u],weight[base+2u],weight[base+3u]);
}
fn rolled(n:u32) ->u32{return min(n,n*p.m);}
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let tx=t%16u;
let ty=t/16u;
let row0=wg.y*32u*RM;
let block0=wg.x*16u;
var total:array<vec4f,ROWS>; //#scalars
var acc:array<vec4f,ROWS>; //#scalars
var sums:array<vec4i,ROWS>; //#scalars
for (var first=0u;first<p.groups;first+=4u){
//#unroll
for (var r=0u;r<ROWS;r++){
acc[r]=vec4f(0.0);
}
for (var g0=first;g0<min(first+4u,p.groups);g0+=2u){
workgroupBarrier();
//#unroll DEEP
for (var k=0u;k<rolled(RM);k++){
let i=t+k*128u;
let quad=i/8u%QUADS;
let h=i/8u/QUADS;
rows[(h*8u+i%8u)*QUADS+quad]=four_rows(row0+quad*4u,g0+h,i%8u);
}
if(t<2u*QUADS){
row_scales[t]=bitcast<vec4f>(four_rows(row0+t%QUADS*4u,g0+t/QUADS,8u));
//#if FORMAT == int4
corrections[t]=bitcast<vec4i>(four_rows(row0+t%QUADS*4u,g0+t/QUADS,9u));
//#endif
}
//#if FORMAT == int4
let words=four_words(block0+t/4u%16u,g0+t/64u,t%4u*4u);
let to=(t/64u*8u+t%4u*2u)*16u+t/4u%16u;
tile[to]=words&vec4u(0x0f0f0f0fu);
tile[to+16u]=(words>>vec4u(4u))&vec4u(0x0f0f0f0fu);
//#else
//#unroll DEEP
for (var k=0u;k<rolled(2u);k++){
tile[(k*8u+t%8u)*16u+t/8u]=four_words(block0+t/8u,g0+k,t%8u*4u);
}
//#endif
//#if FORMAT != int8
if(t<32u){
  let block=min(block0+tx,p.blocks - 1u);
  let record=(block*p.groups+min(g0+t/16u,p.groups - 1u))*RECORD;
  scales[t]=vec4f(unpack2x16float(weight[record]),unpack2x16float(weight[record+1u]));
}
//#endif
workgroupBarrier();
//#unroll DEEP
for (var h=0u;h<rolled(2u);h++){
//#unroll
for (var r=0u;r<ROWS;r++){
sums[r]=vec4i(0);
}
//#unroll DEEP
for (var s=0u;s<rolled(8u);s++){
let w=tile[(h*8u+s)*16u+tx];
//#unroll
for (var q=0u;q<RM;q++){
let v=rows[(h*8u+s)*QUADS+ty*RM+q];
sums[q*4u]+=dots(v.x,w);
sums[q*4u+1u]+=dots(v.y,w);
sums[q*4u+2u]+=dots(v.z,w);
sums[q*4u+3u]+=dots(v.w,w);
}
}
//#unroll
for (var q=0u;q<RM;q++){
let at=h*QUADS+ty*RM+q;
let scale=row_scales[at];
//#unroll
for (var j=0u;j<4u;j++){
//#if FORMAT == int8
acc[q*4u+j]=fma(vec4f(sums[q*4u+j]),vec4f(scale[j]),acc[q*4u+j]);
//#elif FORMAT == int4
let exact=vec4f(sums[q*4u+j]+vec4i(corrections[at][j]));
acc[q*4u+j]=fma(exact,scale[j]*scales[h*16u+tx],acc[q*4u+j]);
//#else
acc[q*4u+j]=fma(vec4f(sums[q*4u+j]),scale[j]*scales[h*16u+tx],acc[q*4u+j]);
//#endif
}
}
}
}
//#unroll
for (var r=0u;r<ROWS;r++){
total[r]+=acc[r];
}
}
//#unroll DEEP
for (var c=0u;c<rolled(4u);c++){
let o=(block0+tx)*4u+c;
if(o<p.o){
//#if HAS_BIAS
let shift=load_bias(p.bias_offset+o*p.bias_stride);
//#else
let shift=0.0;
//#endif
//#if FORMAT == int8
let scale=bitcast<f32>(weight[p.blocks*p.groups*RECORD+o]);
//#endif
//#unroll
for (var r=0u;r<ROWS;r++){
let row=row0+ty*ROWS+r;
if(row<p.m){
//#if FORMAT == int8
out[p.out_offset+row*p.out_row+o]=fma(total[r][c],scale,shift);
//#else
out[p.out_offset+row*p.out_row+o]=total[r][c]+shift;
//#endif
}
}
}
}
}
`,
  linear_quantized_few: `
//#flags FORMAT=int8 HAS_BIAS=true PACKED_DOT=false
const ROWS: u32 = 4u; //#constant
const RECORD: u32 = 34u; //#constant
const VALUES: u32 = 2u; //#constant
struct Params{
m:u32,
groups:u32,
o:u32,
blocks:u32,
pitch:u32,
bias_offset:u32,
bias_stride:u32,
out_offset:u32,
out_row:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<vec4u>;
@group(0)@binding(2)var<storage,read>weight:array<u32>;
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>part:array<f32,ROWS*64u>;
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
fn dot4(a:u32,b:u32) ->i32{
//#if PACKED_DOT
return dot4I8Packed(a,b);
//#else
let left=vec4u(24u,16u,8u,0u);
let right=vec4u(24u);
return dot(bitcast<vec4i>(vec4u(a)<<left)>>right,bitcast<vec4i>(vec4u(b)<<left)>>right);
//#endif
}
fn rolled(n:u32) ->u32{return min(n,n*p.m);}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let c=t%4u;
let segment=t/4u;
let block=wg.y*p.pitch+wg.x;
if(block>=p.blocks){return;}
var acc:array<f32,ROWS>; //#scalars
var w:array<u32,8>; //#scalars
var total=0.0;
for (var first=0u;first<p.groups;first+=64u){
//#unroll
for (var r=0u;r<ROWS;r++){
acc[r]=0.0;
}
//#unroll DEEP
for (var k=0u;k<rolled(4u);k++){
let g=first+segment*4u+k;
if(g<p.groups){
let record=(block*p.groups+g)*RECORD;
let values=record+VALUES+c;
//#if FORMAT == int4
//#unroll
for (var s=0u;s<4u;s++){
  w[s*2u]=weight[values+s*4u];
  w[s*2u+1u]=(w[s*2u]>>4u)&0x0f0f0f0fu;
  w[s*2u]&=0x0f0f0f0fu;
}
//#else
//#unroll
for (var s=0u;s<8u;s++){
w[s]=weight[values+s*4u];
}
//#endif
//#if FORMAT != int8
let scale=unpack2x16float(weight[record+c/2u]>>(c%2u*16u)).x;
//#endif
//#unroll
for (var r=0u;r<ROWS;r++){
let at=(min(r,p.m - 1u)*p.groups+g)*3u;
let a=x[at];
let b=x[at+1u];
let rest=x[at+2u];
var sum=dot4(a.x,w[0])+dot4(a.y,w[1])+dot4(a.z,w[2])+dot4(a.w,w[3]);
sum+=dot4(b.x,w[4])+dot4(b.y,w[5])+dot4(b.z,w[6])+dot4(b.w,w[7]);
//#if FORMAT == int4
sum+=bitcast<i32>(rest.y);
//#endif
//#if FORMAT == int8
acc[r]=fma(f32(sum),bitcast<f32>(rest.x),acc[r]);
//#else
acc[r]=fma(f32(sum),bitcast<f32>(rest.x)*scale,acc[r]);
//#endif
}
}
}
//#unroll
for (var r=0u;r<ROWS;r++){
part[r*64u+t]=acc[r];
}
workgroupBarrier();
let at=min(t/4u,ROWS - 1u)*64u+c;
//#unroll DEEP
for (var s=0u;s<rolled(16u);s++){
total+=part[at+s*4u];
}
workgroupBarrier();
}
let row=t/4u;
let o=block*4u+c;
if(row>=p.m||o>=p.o){return;}
//#if HAS_BIAS
let shift=load_bias(p.bias_offset+o*p.bias_stride);
//#else
let shift=0.0;
//#endif
//#if FORMAT == int8
out[p.out_offset+row*p.out_row+o]=fma(total,bitcast<f32>(weight[p.blocks*p.groups*RECORD+o]),shift);
//#else
out[p.out_offset+row*p.out_row+o]=total+shift;
//#endif
}
`,
  matmul: `
//#flags HAS_BIAS=true ALONG_P=true VECTOR_A=false VECTOR_B=false PREFETCH=false
const TY: u32 = 16u; //#constant
const RM: u32 = 1u; //#constant
const RN: u32 = 1u; //#constant
const STEP:u32=16u;
const THREADS:u32=TY*16u;
const A_WIDTH:u32=TY*RM;
const A_TILE:u32=STEP*A_WIDTH;
const A_TURNS:u32=(A_TILE+THREADS - 1u)/THREADS;
const A_QUADS:u32=(A_TILE/4u+THREADS - 1u)/THREADS;
const B_WIDTH:u32=16u*RN;
const B_TILE:u32=STEP*B_WIDTH;
const B_TURNS:u32=(B_TILE+THREADS - 1u)/THREADS;
const B_QUADS:u32=(B_TILE/4u+THREADS - 1u)/THREADS;
const TOTALS:u32=4u*RM*RN;
struct Params{
batch_shape:vec4u,
a_batch:vec4u,
b_batch:vec4u,
out_batch:vec4u,
first_batch:u32,
m:u32,
n:u32,
p:u32,
a_offset:u32,
a_m:u32,
a_n:u32,
b_offset:u32,
b_n:u32,
b_p:u32,
out_offset:u32,
out_m:u32,
out_p:u32,
bias_offset:u32,
bias_stride:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>a:array<f32>; //#storage A
@group(0)@binding(2)var<storage,read>b:array<f32>; //#storage B
//#if HAS_BIAS
@group(0)@binding(3)var<storage,read>bias:array<f32>; //#storage BIAS
//#endif
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
var<workgroup>tile_a:array<array<vec4f,A_WIDTH>,STEP>;
var<workgroup>tile_b:array<array<vec4f,B_WIDTH>,STEP>;
//#if VECTOR_A
fn load_a4(i:u32,n:u32) ->vec4f{} //#load4 a A
//#else
fn load_a(i:u32) ->f32{} //#load a A
//#endif
//#if VECTOR_B
fn load_b4(i:u32,n:u32) ->vec4f{} //#load4 b B
//#else
fn load_b(i:u32) ->f32{} //#load b B
//#endif
//#if HAS_BIAS
fn load_bias(i:u32) ->f32{} //#load bias BIAS
//#endif
//#if VECTOR_A
fn a4_at(base:u32,row:u32,k:u32) ->vec4f{
if(row<p.m&&k<p.n){return load_a4(base+row*p.a_m+k,4u);}
return vec4f(0.0);
}
//#else
fn a_at(base:u32,row:u32,k:u32) ->f32{
if(row<p.m&&k<p.n){return load_a(base+row*p.a_m+k*p.a_n);}
return 0.0;
}
//#endif
//#if VECTOR_B
fn b4_at(base:u32,k:u32,col:u32) ->vec4f{
if(col<p.p&&k<p.n){return load_b4(base+k*p.b_n+col*p.b_p,4u);}
return vec4f(0.0);
}
//#else
fn b_at(base:u32,k:u32,col:u32) ->f32{
if(col<p.p&&k<p.n){return load_b(base+k*p.b_n+col*p.b_p);}
return 0.0;
}
//#endif
//#if VECTOR_A
fn a_block(base:u32,row0:u32,k0:u32,i:u32,r:u32) ->vec4f{
return a4_at(base,row0+i/4u*4u+r,k0+i%4u*4u);
}
fn store_a(i:u32,x0:vec4f,x1:vec4f,x2:vec4f,x3:vec4f){
let k=i%4u*4u;
let g=i/4u;
tile_a[k][g]=vec4f(x0.x,x1.x,x2.x,x3.x);
tile_a[k+1u][g]=vec4f(x0.y,x1.y,x2.y,x3.y);
tile_a[k+2u][g]=vec4f(x0.z,x1.z,x2.z,x3.z);
tile_a[k+3u][g]=vec4f(x0.w,x1.w,x2.w,x3.w);
}
//#endif
//#if VECTOR_B && ALONG_P
fn b_vector(base:u32,k0:u32,col0:u32,i:u32) ->vec4f{
return b4_at(base,k0+i/B_WIDTH,col0+i%B_WIDTH*4u);
}
//#elif VECTOR_B
fn b_block(base:u32,k0:u32,col0:u32,i:u32,r:u32) ->vec4f{
return b4_at(base,k0+i%4u*4u,col0+i/4u*4u+r);
}
fn store_b(i:u32,x0:vec4f,x1:vec4f,x2:vec4f,x3:vec4f){
let k=i%4u*4u;
let g=i/4u;
tile_b[k][g]=vec4f(x0.x,x1.x,x2.x,x3.x);
tile_b[k+1u][g]=vec4f(x0.y,x1.y,x2.y,x3.y);
tile_b[k+2u][g]=vec4f(x0.z,x1.z,x2.z,x3.z);
tile_b[k+3u][g]=vec4f(x0.w,x1.w,x2.w,x3.w);
}
//#endif
//#if PREFETCH && !ALONG_P
fn block_of(t:u32,a_base:u32,b_base:u32,row0:u32,col0:u32,k0:u32,r:u32) ->vec4f{
if(t<A_TILE/4u){return a_block(a_base,row0,k0,t,r);}
return b_block(b_base,k0,col0,t - A_TILE/4u,r);
}
//#endif
fn rolled(n:u32) ->u32{return min(n,n*p.m);}
fn pick(i:u32,a:vec4f,b:vec4f,c:vec4f,d:vec4f) ->vec4f{
return select(select(a,b,i==1u),select(c,d,i==3u),i>=2u);
}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
var rest=p.first_batch+wg.z;
var a_base=p.a_offset;
var b_base=p.b_offset;
var out_base=p.out_offset;
//#unroll
for (var d=0u;d<4u;d++){
let at=rest%p.batch_shape[d];
rest/=p.batch_shape[d];
a_base+=at*p.a_batch[d];
b_base+=at*p.b_batch[d];
out_base+=at*p.out_batch[d];
}
let row0=wg.y*A_WIDTH*4u;
let col0=wg.x*B_WIDTH*4u;
let ty=t/16u;
let tx=t%16u;
var acc:array<vec4f,TOTALS>; //#scalars
var total:array<vec4f,TOTALS>; //#scalars
var av:array<vec4f,RM>; //#scalars
var bv:array<vec4f,RN>; //#scalars
//#if PREFETCH
var next:array<vec4f,4>; //#scalars
//#unroll
for (var r=0u;r<4u;r++){
//#if ALONG_P
if(t<A_TILE/4u){next[r]=a_block(a_base,row0,0u,t,r);}
//#else
next[r]=block_of(t,a_base,b_base,row0,col0,0u,r);
//#endif
}
//#endif
//#if PREFETCH && ALONG_P
var next_b:array<vec4f,B_TURNS>; //#scalars
//#unroll
for (var s=0u;s<B_TURNS;s++){
next_b[s]=b_vector(b_base,0u,col0,t+s*THREADS);
}
//#endif
for (var segment=0u;segment<p.n;segment+=256u){
let end=min(p.n,segment+256u);
//#unroll
for (var r=0u;r<TOTALS;r++){
acc[r]=vec4f(0.0);
}
for (var k0=segment;k0<end;k0+=STEP){
workgroupBarrier();
//#if PREFETCH && ALONG_P
if(t<A_TILE/4u){store_a(t,next[0],next[1],next[2],next[3]);}
//#unroll
for (var s=0u;s<B_TURNS;s++){
let i=t+s*THREADS;
tile_b[i/B_WIDTH][i%B_WIDTH]=next_b[s];
}
//#elif PREFETCH
if(t<A_TILE/4u){
store_a(t,next[0],next[1],next[2],next[3]);
}else{
store_b(t - A_TILE/4u,next[0],next[1],next[2],next[3]);
}
//#endif
//#if VECTOR_A && !PREFETCH
//#unroll DEEP
for (var s=0u;s<rolled(A_QUADS);s++){
let i=t+s*THREADS;
if(i<A_TILE/4u){
store_a(i,a_block(a_base,row0,k0,i,0u),a_block(a_base,row0,k0,i,1u),a_block(a_base,row0,k0,i,2u),a_block(a_base,row0,k0,i,3u));
}
}
//#elif !PREFETCH
//#unroll DEEP
for (var s=0u;s<rolled(A_TURNS);s++){
let i=t+s*THREADS;
let k=k0+i%STEP;
let row=row0+i/STEP*4u;
if(i<A_TILE){
tile_a[i%STEP][i/STEP]=vec4f(a_at(a_base,row,k),a_at(a_base,row+1u,k),a_at(a_base,row+2u,k),a_at(a_base,row+3u,k));
}
}
//#endif
//#if VECTOR_B && ALONG_P && !PREFETCH
//#unroll DEEP
for (var s=0u;s<rolled(B_TURNS);s++){
let i=t+s*THREADS;
tile_b[i/B_WIDTH][i%B_WIDTH]=b_vector(b_base,k0,col0,i);
}
//#elif VECTOR_B && !PREFETCH
//#unroll DEEP
for (var s=0u;s<rolled(B_QUADS);s++){
let i=t+s*THREADS;
if(i<B_TILE/4u){
store_b(i,b_block(b_base,k0,col0,i,0u),b_block(b_base,k0,col0,i,1u),b_block(b_base,k0,col0,i,2u),b_block(b_base,k0,col0,i,3u));
}
}
//#elif !PREFETCH
//#unroll DEEP
for (var s=0u;s<rolled(B_TURNS);s++){
let i=t+s*THREADS;
//#if ALONG_P
let k=i/B_WIDTH;
let c=i%B_WIDTH;
//#else
let k=i%STEP;
let c=i/STEP;
//#endif
let col=col0+c*4u;
tile_b[k][c]=vec4f(b_at(b_base,k0+k,col),b_at(b_base,k0+k,col+1u),b_at(b_base,k0+k,col+2u),b_at(b_base,k0+k,col+3u));
}
//#endif
workgroupBarrier();
//#if PREFETCH && ALONG_P
//#unroll
for (var r=0u;r<4u;r++){
if(t<A_TILE/4u){next[r]=a_block(a_base,row0,k0+STEP,t,r);}
}
//#unroll
for (var s=0u;s<B_TURNS;s++){
next_b[s]=b_vector(b_base,k0+STEP,col0,t+s*THREADS);
}
//#elif PREFETCH
//#unroll
for (var r=0u;r<4u;r++){
next[r]=block_of(t,a_base,b_base,row0,col0,k0+STEP,r);
}
//#endif
//#unroll DEEP
for (var k=0u;k<rolled(STEP);k++){
//#unroll
for (var g=0u;g<RM;g++){
av[g]=tile_a[k][ty+g*TY];
}
//#unroll
for (var c=0u;c<RN;c++){
bv[c]=tile_b[k][tx+c*16u];
}
//#unroll
for (var g=0u;g<RM;g++){
//#unroll
for (var c=0u;c<RN;c++){
acc[(g*4u)*RN+c]=fma(vec4f(av[g].x),bv[c],acc[(g*4u)*RN+c]);
acc[(g*4u+1u)*RN+c]=fma(vec4f(av[g].y),bv[c],acc[(g*4u+1u)*RN+c]);
acc[(g*4u+2u)*RN+c]=fma(vec4f(av[g].z),bv[c],acc[(g*4u+2u)*RN+c]);
acc[(g*4u+3u)*RN+c]=fma(vec4f(av[g].w),bv[c],acc[(g*4u+3u)*RN+c]);
}
}
}
}
//#unroll
for (var r=0u;r<TOTALS;r++){
total[r]+=acc[r];
}
}
//#unroll
for (var g=0u;g<RM;g++){
//#unroll
for (var c=0u;c<RN;c++){
//#unroll DEEP
for (var r=0u;r<rolled(4u);r++){
let row=row0+(ty+g*TY)*4u+r;
let col=col0+(tx+c*16u)*4u;
let x=pick(r,total[(g*4u)*RN+c],total[(g*4u+1u)*RN+c],total[(g*4u+2u)*RN+c],total[(g*4u+3u)*RN+c]);
let base=out_base+row*p.out_m;
//#unroll DEEP
for (var i=0u;i<rolled(4u);i++){
if(row<p.m&&col+i<p.p){
//#if HAS_BIAS
out[base+(col+i)*p.out_p]=x[i]+load_bias(p.bias_offset+(col+i)*p.bias_stride);
//#else
out[base+(col+i)*p.out_p]=x[i];
//#endif
}
}
}
}
}
}
`,
  patch: `
struct Params{
word:u32,
bits:u32,
mask:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read_write>out:array<u32>;
@compute @workgroup_size(1)
fn main(){
out[p.word]=(out[p.word]&~p.mask)|(p.bits&p.mask);
}
`,
  quantize_rows: `
const THREADS:u32=64u;
struct Params{
items:u32,
pitch:u32,
groups:u32,
i:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
limit:f32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>;
@group(0)@binding(2)var<storage,read_write>out:array<u32>;
var<workgroup>peak:array<u32,64>;
var<workgroup>sums:array<i32,64>;
fn divided(a:f32,b:f32) ->f32{
let x=bitcast<u32>(a);
let y=bitcast<u32>(b);
let m=(x&0x7fffffu)|0x800000u;
let n=(y&0x7fffffu)|0x800000u;
let shift=select(23u,24u,m<n);
var q=u32(f32(m)/f32(n)*f32(1u<<shift));
var rest=bitcast<i32>((m<<shift) - q*n);
let step=i32(n);
for (var i=0u;i<4u;i++){
let by=select(select(0,1,rest>=step),-1,rest<0);
q+=bitcast<u32>(by);
rest -=by*step;
}
q+=select(0u,1u,2*rest>step||(2*rest==step&&(q&1u)==1u));
let exponent=i32(x>>23u) - i32(y>>23u)+150 - i32(shift);
if(exponent<=0){return 0.0;}
return bitcast<f32>((u32(exponent)<<23u)+(q - 0x800000u));
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg:vec3u,@builtin(local_invocation_index) t:u32){
let lane=t%8u;
let item=wg.y*p.pitch+wg.x*8u+t/8u;
let row=item/p.groups;
let col=item%p.groups*32u+lane*4u;
let base=p.x_offset+row*p.x_row+col*p.x_col;
var v=vec4f(0.0);
if(item<p.items&&col<p.i){
let n=p.i - col;
v=vec4f(
x[base],
select(0.0,x[base+p.x_col],n>1u),
select(0.0,x[base+2u*p.x_col],n>2u),
select(0.0,x[base+3u*p.x_col],n>3u));
}
let magnitude=bitcast<vec4u>(v)&vec4u(0x7fffffffu);
peak[t]=max(max(magnitude.x,magnitude.y),max(magnitude.z,magnitude.w));
workgroupBarrier();
var most=0u;
//#unroll
for (var s=0u;s<8u;s++){
most=max(most,peak[t - lane+s]);
}
let finite=most<0x7f800000u;
let some=finite&&bitcast<f32>(most)>1e-36;
var q=vec4i(0);
if(some){q=vec4i(round(v*divided(p.limit,bitcast<f32>(most))));}
sums[t]=q.x+q.y+q.z+q.w;
workgroupBarrier();
if(item>=p.items){return;}
let bytes=bitcast<vec4u>(q)&vec4u(255u);
out[item*12u+lane]=bytes.x|(bytes.y<<8u)|(bytes.z<<16u)|(bytes.w<<24u);
if(lane==0u){
var scale=select(most,0u,finite);
if(some){scale=bitcast<u32>(divided(bitcast<f32>(most),p.limit));}
out[item*12u+8u]=scale;
var sum=0;
//#unroll
for (var s=0u;s<8u;s++){
sum+=sums[t+s];
}
out[item*12u+9u]=bitcast<u32>(-8*sum);
}
}
`,
  reduce: `
//#flags OP=sum INTEGER=false SUBGROUPS=false
const RANK: u32 = 1u; //#constant
alias Value = f32; //#alias OUT
const THREADS:u32=64u;
struct Params{
shape:array<vec4u,2>,
x_strides:array<vec4u,2>,
out_strides:array<vec4u,2>,
rows:u32,
pitch:u32,
x_offset:u32,
out_offset:u32,
n:u32,
n_stride:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
//#if OP == max
@group(0)@binding(2)var<storage,read_write>out:array<u32>;
var<workgroup>part:array<u32,64>;
//#else
@group(0)@binding(2)var<storage,read_write>out:array<f32>; //#storage OUT
var<workgroup>part:array<Value,64>;
//#endif
fn load_x(i:u32) ->Value{} //#load x IN
//#if OP == max
fn rank_of(v:Value) ->u32{
let bits=bitcast<u32>(v);
//#if INTEGER
return bits ^ 0x80000000u;
//#else
let magnitude=bits&0x7fffffffu;
if(magnitude>0x7f800000u){return 0xffffffffu;}
if(magnitude==bits||magnitude==0u){return magnitude|0x80000000u;}
return ~bits;
//#endif
}
//#endif
@compute @workgroup_size(64)
fn main(
//#if SUBGROUPS
@builtin(subgroup_size) size:u32,
@builtin(subgroup_invocation_id) lane:u32,
//#endif
@builtin(workgroup_id) wg:vec3u,
@builtin(local_invocation_index) t:u32,
){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
var rest=row;
var xi=p.x_offset;
var oi=p.out_offset;
//#unroll
for (var d=0u;d<RANK;d++){
let at=rest%p.shape[d/4u][d%4u];
rest/=p.shape[d/4u][d%4u];
xi+=at*p.x_strides[d/4u][d%4u];
oi+=at*p.out_strides[d/4u][d%4u];
}
//#if OP == max
var acc=rank_of(load_x(xi));
//#else
var acc=Value(0);
//#endif
for (var j=t;j<p.n;j+=THREADS){
//#if OP == max
acc=max(acc,rank_of(load_x(xi+j*p.n_stride)));
//#else
acc+=load_x(xi+j*p.n_stride);
//#endif
}
//#if SUBGROUPS
//#if OP == max
acc=subgroupMax(acc);
//#else
acc=subgroupAdd(acc);
//#endif
if(lane==0u){part[t/size]=acc;}
workgroupBarrier();
if(t==0u){
for (var i=1u;i<THREADS/size;i++){
//#if OP == max
part[0]=max(part[0],part[i]);
//#else
part[0]+=part[i];
//#endif
}
}
//#else
part[t]=acc;
for (var half=THREADS/2u;half>0u;half/=2u){
workgroupBarrier();
if(t<half){
//#if OP == max
part[t]=max(part[t],part[t+half]);
//#else
part[t]+=part[t+half];
//#endif
}
}
//#endif
if(t==0u){
//#if OP == mean
out[oi]=part[0]/Value(p.n);
//#elif OP == max && INTEGER
out[oi]=part[0] ^ 0x80000000u;
//#elif OP == max
out[oi]=select(~part[0],part[0]&0x7fffffffu,part[0]>=0x80000000u);
//#else
out[oi]=part[0];
//#endif
}
}
`,
  rms_norm: `
//#flags HAS_WEIGHT=true SUBGROUPS=false
const THREADS:u32=64u;
struct Params{
rows:u32,
pitch:u32,
n:u32,
x_offset:u32,
x_row:u32,
x_col:u32,
weight_offset:u32,
weight_stride:u32,
out_offset:u32,
out_row:u32,
out_col:u32,
eps:f32,
unit_offset:f32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
//#if HAS_WEIGHT
@group(0)@binding(2)var<storage,read>weight:array<f32>; //#storage WEIGHT
//#endif
@group(0)@binding(3)var<storage,read_write>out:array<f32>;
var<workgroup>part:array<f32,64>;
fn load_x(i:u32) ->f32{} //#load x IN
//#if HAS_WEIGHT
fn load_weight(i:u32) ->f32{} //#load weight WEIGHT
//#endif
@compute @workgroup_size(64)
fn main(
//#if SUBGROUPS
@builtin(subgroup_size) size:u32,
@builtin(subgroup_invocation_id) lane:u32,
//#endif
@builtin(workgroup_id) wg:vec3u,
@builtin(local_invocation_index) t:u32,
){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
let xi=p.x_offset+row*p.x_row;
let oi=p.out_offset+row*p.out_row;
var sum=0.0;
for (var j=t;j<p.n;j+=THREADS){
let v=load_x(xi+j*p.x_col);
sum=fma(v,v,sum);
}
//#if SUBGROUPS
sum=subgroupAdd(sum);
if(lane==0u){part[t/size]=sum;}
workgroupBarrier();
sum=part[0];
for (var i=1u;i<THREADS/size;i++){sum+=part[i];}
//#else
part[t]=sum;
for (var width=THREADS/2u;width>0u;width/=2u){
workgroupBarrier();
if(t<width){part[t]+=part[t+width];}
}
workgroupBarrier();
sum=part[0];
//#endif
let scale=1.0/sqrt(sum/f32(p.n)+p.eps);
for (var j=t;j<p.n;j+=THREADS){
let v=load_x(xi+j*p.x_col)*scale;
//#if HAS_WEIGHT
out[oi+j*p.out_col]=v*(load_weight(p.weight_offset+j*p.weight_stride)+p.unit_offset);
//#else
out[oi+j*p.out_col]=v;
//#endif
}
}
`,
  rotary: `
struct Params{
count:u32,
pitch:u32,
heads:u32,
n:u32,
half_d:u32,
x_offset:u32,
x_b:u32,
x_h:u32,
x_n:u32,
x_d:u32,
table_offset:u32,
table_row:u32,
table_col:u32,
positions_offset:u32,
positions_b:u32,
positions_n:u32,
out_offset:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
@group(0)@binding(2)var<storage,read>table:array<f32>;
@group(0)@binding(3)var<storage,read>positions:array<u32>;
@group(0)@binding(4)var<storage,read_write>out:array<f32>;
fn load_x(i:u32) ->f32{} //#load x IN
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id:vec3u){
let i=id.y*p.pitch+id.x;
if(i>=p.count){return;}
let d=i%p.half_d;
let row=i/p.half_d;
let n=row%p.n;
let h=row/p.n%p.heads;
let b=row/p.n/p.heads;
let angle=p.table_offset+positions[p.positions_offset+b*p.positions_b+n*p.positions_n]*p.table_row;
let c=table[angle+d*p.table_col];
let s=table[angle+(d+p.half_d)*p.table_col];
let xi=p.x_offset+b*p.x_b+h*p.x_h+n*p.x_n+d*p.x_d;
let low=load_x(xi);
let high=load_x(xi+p.half_d*p.x_d);
let oi=p.out_offset+row*p.half_d*2u+d;
out[oi]=low*c - high*s;
out[oi+p.half_d]=high*c+low*s;
}
`,
  softmax: `
//#flags LSE=true SUBGROUPS=false
const RANK: u32 = 1u; //#constant
const THREADS:u32=64u;
const LOWEST:f32=-3.4028234e38;
struct Params{
shape:array<vec4u,2>,
x_strides:array<vec4u,2>,
rows:u32,
pitch:u32,
x_offset:u32,
out_offset:u32,
lse_offset:u32,
n:u32,
n_stride:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<u32>;
@group(0)@binding(2)var<storage,read_write>out:array<f32>;
//#if LSE
@group(0)@binding(3)var<storage,read_write>lse:array<u32>;
//#endif
var<workgroup>part:array<f32,64>;
fn weight(v:f32,m:f32) ->f32{return exp(2.0*max(0.5*v - 0.5*m,-1000.0));}
@compute @workgroup_size(64)
fn main(
//#if SUBGROUPS
@builtin(subgroup_size) size:u32,
@builtin(subgroup_invocation_id) lane:u32,
//#endif
@builtin(workgroup_id) wg:vec3u,
@builtin(local_invocation_index) t:u32,
){
let row=wg.y*p.pitch+wg.x;
if(row>=p.rows){return;}
var rest=row;
var xi=p.x_offset;
//#unroll
for (var d=0u;d<RANK;d++){
xi+=rest%p.shape[d/4u][d%4u]*p.x_strides[d/4u][d%4u];
rest/=p.shape[d/4u][d%4u];
}
let oi=p.out_offset+row*p.n;
var m=LOWEST;
for (var j=t;j<p.n;j+=THREADS){
let bits=x[xi+j*p.n_stride];
m=max(m,select(bitcast<f32>(bits),LOWEST,bits==0xff800000u));
}
//#if SUBGROUPS
m=subgroupMax(m);
if(lane==0u){part[t/size]=m;}
workgroupBarrier();
m=part[0];
for (var i=1u;i<THREADS/size;i++){m=max(m,part[i]);}
//#else
part[t]=m;
for (var half=THREADS/2u;half>0u;half/=2u){
workgroupBarrier();
if(t<half){part[t]=max(part[t],part[t+half]);}
}
workgroupBarrier();
m=part[0];
//#endif
workgroupBarrier();
var sum=0.0;
for (var j=t;j<p.n;j+=THREADS){
let bits=x[xi+j*p.n_stride];
let hidden=bits==0xff800000u;
let w=select(weight(bitcast<f32>(select(bits,0xff7fffffu,hidden)),m),0.0,hidden);
out[oi+j]=w;
sum+=w;
}
//#if SUBGROUPS
sum=subgroupAdd(sum);
if(lane==0u){part[t/size]=sum;}
workgroupBarrier();
sum=part[0];
for (var i=1u;i<THREADS/size;i++){sum+=part[i];}
//#else
part[t]=sum;
for (var half=THREADS/2u;half>0u;half/=2u){
workgroupBarrier();
if(t<half){part[t]+=part[t+half];}
}
workgroupBarrier();
sum=part[0];
//#endif
let scale=select(0.0,1.0/max(sum,1.0e-30),sum>0.0);
for (var j=t;j<p.n;j+=THREADS){out[oi+j]*=scale;}
//#if LSE
if(t==0u){lse[p.lse_offset+row]=select(0xff800000u,bitcast<u32>(m+log(max(sum,1.0e-30))),sum>0.0);}
//#endif
}
`,
  unary: `
//#flags OP=copy PAIR=false TO=float
const RANK: u32 = 1u; //#constant
alias In = f32; //#alias IN
alias Out = f32; //#alias OUT
struct Params{
shape:array<vec4u,2>,
x_strides:array<vec4u,2>,
out_strides:array<vec4u,2>,
count:u32,
pitch:u32,
x_offset:u32,
out_offset:u32,
x_step:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>x:array<f32>; //#storage IN
//#if PAIR
@group(0)@binding(2)var<storage,read_write>out:array<u32>;
//#else
@group(0)@binding(2)var<storage,read_write>out:array<f32>; //#storage OUT
//#endif
fn load_x(i:u32) ->In{} //#load x IN
//#if PAIR
fn bits(v: Out) -> u32 {} //#bits OUT
//#else
fn store_out(i: u32, v: Out) {} //#store out OUT
//#endif
//#if OP == gelu
fn erfc(v:f32) ->f32{
let z=abs(v);
let t=1.0/(1.0+0.5*z);
let e=t*exp(-z*z - 1.26551223+t*(1.00002368+t*(0.37409196+t*(0.09678418+t*(-0.18628806
+t*(0.27886807+t*(-1.13520398+t*(1.48851587+t*(-0.82215223+t*0.17087277)))))))));
return select(2.0 - e,e,v>=0.0);
}
//#endif
//#if OP == tanh || OP == gelu_tanh
fn tanh_of(v:f32) ->f32{
let a=min(abs(v),15.0);
let s=v*v;
let e=1.0 - 2.0/(exp(2.0*a)+1.0);
let series=v+v*s*(-0.33333333+s*(0.13333333+s*(-0.053968254+s*0.021869489)));
return select(select(-e,e,v>=0.0),series,a<0.25);
}
//#endif
fn f(v:In) ->Out{
//#if OP == copy
//#if TO == float
return Out(v);
//#elif TO == int8
return (v<<24u)>>24u;
//#elif TO == uint8
return v&255;
//#elif TO == bool
return select(0,1,(bitcast<u32>(v)&0x7fffffffu) !=0u);
//#elif TO == bool_of_int
return select(0,1,v !=0);
//#elif TO == int8_of_float
return i32(clamp(v,-128.0,127.0));
//#elif TO == uint8_of_float
return i32(clamp(v,0.0,255.0));
//#endif
//#elif OP == neg
return -v;
//#elif OP == exp
return exp(v);
//#elif OP == log
return log(v);
//#elif OP == tanh
return tanh_of(v);
//#elif OP == sigmoid
return 1.0/(1.0+exp(-v));
//#elif OP == sqrt
return sqrt(v);
//#elif OP == silu
return v/(1.0+exp(-v));
//#elif OP == gelu
return 0.5*v*erfc(-0.70710678*v);
//#elif OP == gelu_tanh
return 0.5*v*(1.0+tanh_of(0.79788456*(v+0.044715*v*v*v)));
//#elif OP == quick_gelu
return v/(1.0+exp(-1.702*v));
//#elif OP == relu
return max(v,0.0);
//#endif
}
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id:vec3u){
var rest=id.y*p.pitch+id.x;
if(rest>=p.count){return;}
var xi=p.x_offset;
var oi=p.out_offset;
//#unroll
for (var d=0u;d<RANK;d++){
let at=rest%p.shape[d/4u][d%4u];
rest/=p.shape[d/4u][d%4u];
xi+=at*p.x_strides[d/4u][d%4u];
oi+=at*p.out_strides[d/4u][d%4u];
}
//#if PAIR
out[oi>>1u]=bits(f(load_x(xi)))|(bits(f(load_x(xi+p.x_step)))<<16u);
//#else
store_out(oi,f(load_x(xi)));
//#endif
}
`,
  where: `
const RANK: u32 = 1u; //#constant
alias Value = u32; //#alias OUT
struct Params{
shape:array<vec4u,2>,
c_strides:array<vec4u,2>,
a_strides:array<vec4u,2>,
b_strides:array<vec4u,2>,
out_strides:array<vec4u,2>,
count:u32,
pitch:u32,
c_offset:u32,
a_offset:u32,
b_offset:u32,
out_offset:u32,
}
@group(0)@binding(0)var<uniform>p:Params;
@group(0)@binding(1)var<storage,read>condition:array<u32>;
@group(0)@binding(2)var<storage,read>a:array<u32>; //#storage OUT
@group(0)@binding(3)var<storage,read>b:array<u32>; //#storage OUT
@group(0)@binding(4)var<storage,read_write>out:array<u32>; //#storage OUT
fn load_a(i:u32) ->Value{} //#load a OUT
fn load_b(i:u32) ->Value{} //#load b OUT
fn store_out(i: u32, v: Value) {} //#store out OUT
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id:vec3u){
var rest=id.y*p.pitch+id.x;
if(rest>=p.count){return;}
var ci=p.c_offset;
var ai=p.a_offset;
var bi=p.b_offset;
var oi=p.out_offset;
//#unroll
for (var d=0u;d<RANK;d++){
let at=rest%p.shape[d/4u][d%4u];
rest/=p.shape[d/4u][d%4u];
ci+=at*p.c_strides[d/4u][d%4u];
ai+=at*p.a_strides[d/4u][d%4u];
bi+=at*p.b_strides[d/4u][d%4u];
oi+=at*p.out_strides[d/4u][d%4u];
}
if(condition[ci] !=0u){store_out(oi,load_a(ai));}else{store_out(oi,load_b(bi));}
}
`,
} as const;

/** Name of a kernel. */
export type Stem = keyof typeof SHADERS;
