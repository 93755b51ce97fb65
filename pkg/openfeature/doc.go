// Package openfeature is an OpenFeature provider over the SDK: flags are decided in
// the process, from the view of a client.Client, without asking anybody.
//
//	cp, err := client.Open(ctx, client.Config{…})
//	err = of.SetProviderAndWait(openfeature.NewProvider(cp)) // of: github.com/open-feature/go-sdk/openfeature
//	enabled := of.NewDefaultClient().Boolean(ctx, "new-checkout", false, of.NewEvaluationContext(userID, nil))
//
// Where nothing is cached and no server can be reached, SetProviderAndWait returns an
// error: flags have the defaults of the code, and the provider becomes ready by itself
// once there is a view.
//
// Numbers in objects are float64, as in package encoding/json.
package openfeature
