"""Does the core keep Raft's promises?"""
