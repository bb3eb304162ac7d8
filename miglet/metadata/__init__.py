"""What the cloud says of this machine: identity, settings, tokens, its coming end.

One file a cloud (``gce``, ``aws``, ``azure``), imported only on a machine of that
cloud. The one rule: nobody is asked anything before the firmware's own description
says which cloud this is.
"""
