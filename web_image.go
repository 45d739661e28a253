package main

import "context"

func writeSVG(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	d := badge(summary(spec, views), spec.options.imageOptions)
	return d.writeSVG(spec.options.theme, spec.options.height(d)), nil
}

// writePNG writes an image with the texts that the embedded fonts can draw: labels in another script are in English,
// other texts are left out.
func writePNG(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	english, options := r.languages.english(), spec.options.imageOptions
	for i := range views {
		v := &views[i]
		if !canDraw(v.Label) {
			v.Label = v.labelIn(english)
		}
		if !canDraw(v.ActivityLabel) {
			v.ActivityLabel = v.Rich.Activity.label(english)
		}
		if !canDraw(v.MoodLabel) {
			v.MoodLabel = v.Rich.Mood.label(english)
		}
		for _, s := range []*string{&v.Message, &v.Nick, &v.LastActive, &v.JID, &v.Rich.Activity.Text, &v.Rich.Mood.Text,
			&v.Rich.Tune.Artist, &v.Rich.Tune.Title, &v.Rich.Tune.Source} {
			if !canDraw(*s) {
				*s = ""
			}
		}
	}
	if !canDraw(options.label) {
		options.label, options.labelled = "", false
	}
	return drawPNG(spec.ctx, badge(summary(spec, views), options), options)
}

// drawPNG encodes a drawing in the size and theme of the options.
func drawPNG(ctx context.Context, d *drawing, options imageOptions) ([]byte, error) {
	return d.writePNG(ctx, options.theme, options.height(d))
}
