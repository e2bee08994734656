"""The texts of `separate -h` and `separate --help`."""

SHORT_HELP = """\
usage: separate --query "dog barking" [options] FILE ...

  separate --query "dog barking" mix.wav         extract a sound: writes mix.dog_barking.wav
  separate --remove wind --remove cough mix.wav  remove sounds: writes mix.without.wav
  separate --gain speech=+3 mix.wav              change the level of a sound: writes mix.remix.wav
  separate --query speech -r in/ -o out/         all recordings in a folder and its subfolders
  separate --list mix.wav                        which sounds are in it and when (--all writes them)

  -o FOLDER          where to write; by default beside the input
  --residual         also write what is left
  --from, --to TIME  only a part of the recording
  --format NAME      wav, flac, mp3, ...; by default as the input
  --overwrite        replace existing files; --skip-existing goes on after a stop
  --sounds WORD      how sounds near a word are called
  --json             print one line of JSON for each file
  --live             sound as it arrives: a pipe, or microphone to speaker

separate --help lists all options and more examples.
"""

DESCRIPTION = """\
Extract the sound that you describe from a recording.

Each query writes one file beside the input: mix.wav becomes mix.dog_barking.wav.
Sample rate, channels and length stay the same. Files may be hours long. Existing
files are never replaced unless you add --overwrite.
"""

EXAMPLES = """\
examples:
  separate --query "dog barking" mix.wav
      writes mix.dog_barking.wav
  separate --query "dog barking" --query rain *.wav -o out/
      writes out/<name>.dog_barking.wav and out/<name>.rain.wav in one pass over each file
  separate --query "dog barking" --residual mix.flac
      also writes mix.not_dog_barking.flac; the two add up to the input
  separate --remove "dog barking" mix.wav
      writes only mix.not_dog_barking.wav
  separate --remove "dog barking" --remove wind --remove "phone ringing" talk.wav
      writes talk.without.wav, which has none of the three (--each: one file for each of them)
  separate --remove wind film.mp4
      writes film.not_wind.mp4: pictures, subtitles and other tracks as they are (--sound-only: wav)
  separate --gain speech=+3 --gain traffic=-12 street.wav
      writes street.remix.wav; sounds that are not named stay as they are; -inf removes
  separate --remove cough --from 3.2 --to 1:07 talk.wav
      removes only what lies between these times
  separate --query speech -r recordings/ -o speech/ --json > report.jsonl
      every recording in a folder and its subfolders, with one line of JSON for each
  separate --query-audio bark.wav mix.wav
      extracts what sounds like bark.wav (or like the files in a folder); writes mix.bark.wav
  separate --query speech --not music mix.wav
      keeps music out of the result; writes mix.speech_without_music.wav
  separate --sounds water
      shows sounds that the model knows near this word, and how they may be called
  separate --list mix.wav
      lists the sounds that are probably in it, of those that the model knows, when, and in
      stereo where: left 0.6 (--array for microphones and ambisonics)
  separate --all mix.wav
      writes one file for each of these sounds and mix.rest.wav; together they add up to the input
  ffmpeg -i film.mkv -f wav - | separate --query siren - > siren.wav
      reads from a pipe and writes to one
  arecord -f S16_LE -r 48000 - | separate --live --remove "dog barking" | aplay
      the same as the sound arrives, 65 ms late (--live without a pipe: microphone to speaker)
  ... | separate --live --raw s16le --rate 16000 --query speech > speech.raw
      samples without a wav header

formats:
  wav gives float32 wav, flac gives 24-bit flac, ogg, opus and mp3 give the same format;
  so does m4a; a query on other files and videos (mp4, ...) gives wav, a removal the same kind
  of file with its pictures. Choose with --format and --subtype.

queries:
  The built-in model takes texts, example recordings and embeddings. Other models take
  pictures (CLIPSep) or AudioSet classes (USS); see --list-models. Each query, of any
  form, gives its own result.

presence is the probability that the sound is in the recording at all, from 0 to 1.
exit status: 0 success, 1 a file failed (the others are done), 2 wrong usage, 130 interrupted.
"""
