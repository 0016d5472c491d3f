// recorder asks Kubernetes' own CEL environment (k8s.io/apiserver, the one ValidatingAdmissionPolicies are compiled in) what expressions
// mean. It reads lines {"e": expression, "env": {variable: JSON}} and writes one line for each: {"value", "type"}, {"error", "type"} or
// {"compile"}. tests/cel/recorded.jsonl was made with it; it is not part of the test run.
//
//	cd tests/cel/recorder && go mod tidy && go run . object x y < questions.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
)

type req struct {
	E   string          `json:"e"`
	Env json.RawMessage `json:"env"`
}

func conv(v ref.Val, depth int) any {
	switch t := v.(type) {
	case types.Bool:
		return map[string]any{"bool": bool(t)}
	case types.Int:
		return map[string]any{"int": fmt.Sprint(int64(t))}
	case types.Double:
		f := float64(t)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return map[string]any{"double": fmt.Sprint(f)}
		}
		b, _ := json.Marshal(f)
		return map[string]any{"double": string(b)}
	case types.String:
		return map[string]any{"string": string(t)}
	case types.Null:
		return map[string]any{"null": true}
	case *types.Optional:
		if t.HasValue() {
			return map[string]any{"optional": conv(t.GetValue(), depth+1)}
		}
		return map[string]any{"none": true}
	case traits.Lister:
		out := []any{}
		n := int64(t.Size().(types.Int))
		for i := int64(0); i < n; i++ {
			out = append(out, conv(t.Get(types.Int(i)), depth+1))
		}
		return map[string]any{"list": out}
	case traits.Mapper:
		out := []any{}
		for it := t.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			out = append(out, []any{conv(k, depth+1), conv(t.Get(k), depth+1)})
		}
		return map[string]any{"map": out}
	}
	return map[string]any{"other": v.Type().TypeName(), "s": fmt.Sprint(v.Value())}
}

func main() {
	vars := os.Args[1:]
	es := environment.MustBaseEnvSet(version.MajorMinor(1, 36))
	opts := []cel.EnvOption{}
	for _, v := range vars {
		opts = append(opts, cel.Variable(v, cel.DynType))
	}
	es, err := es.Extend(environment.VersionedOptions{IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: opts})
	if err != nil {
		panic(err)
	}
	env, err := es.Env(environment.NewExpressions)
	if err != nil {
		panic(err)
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<26)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var r req
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			out.Encode(map[string]any{"bad": err.Error()})
			continue
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					out.Encode(map[string]any{"compile": fmt.Sprint("PANIC ", p)})
				}
			}()
			ast, issues := env.Compile(r.E)
			if issues != nil && issues.Err() != nil {
				out.Encode(map[string]any{"compile": issues.Err().Error()})
				return
			}
			prog, err := env.Program(ast)
			if err != nil {
				out.Encode(map[string]any{"compile": err.Error()})
				return
			}
			m := map[string]any{}
			if err := utiljson.Unmarshal(r.Env, &m); err != nil {
				out.Encode(map[string]any{"bad": err.Error()})
				return
			}
			v, _, err := prog.Eval(m)
			if err != nil {
				out.Encode(map[string]any{"error": err.Error(), "type": ast.OutputType().String()})
				return
			}
			out.Encode(map[string]any{"value": conv(v, 0), "type": ast.OutputType().String()})
		}()
	}
}
